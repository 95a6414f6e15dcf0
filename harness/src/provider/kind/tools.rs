//! Finding kind, a container engine that answers, and the node image.

use std::path::PathBuf;
use std::time::Duration;

use embedded_cluster::cluster::default_state_dir;

use super::cluster::NETWORK;
use super::command::{self, Said};
use super::error::{KindError, tail};

/// Bound of a question to kind or the engine; podman needs seconds on a busy machine.
const ANSWER_WITHIN: Duration = Duration::from_secs(60);
/// Name of the image that `kind-config/node-image/build.sh` makes.
const BUILT_IMAGE: &str = "localhost/gatelab/kind-node";
/// What kind reads to be told its engine.
const ENGINE_VARIABLE: &str = "KIND_EXPERIMENTAL_PROVIDER";

/// Where things are looked for: the environment, apart so that tests can have another.
#[derive(Clone, Debug, Default)]
pub struct Surroundings {
    pub path: Vec<PathBuf>,
    /// The lab's cache folder.
    pub cache: PathBuf,
    /// Where records of running labs are.
    pub runtime: PathBuf,
    /// `GATELAB_KIND`.
    pub kind: Option<PathBuf>,
    /// [`ENGINE_VARIABLE`].
    pub engine: Option<String>,
    /// `GATELAB_NODE_IMAGE`.
    pub image: Option<String>,
    /// Whether `CONTAINERS_CONF` is set.
    pub podman_configured: bool,
}

impl Surroundings {
    pub fn of_this_process(cache: PathBuf) -> Self {
        let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        Surroundings {
            path: std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default()).collect(),
            cache,
            runtime: default_state_dir("").components().collect(),
            kind: variable("GATELAB_KIND").map(PathBuf::from),
            engine: variable(ENGINE_VARIABLE),
            image: variable("GATELAB_NODE_IMAGE"),
            podman_configured: variable("CONTAINERS_CONF").is_some(),
        }
    }

    fn program(&self, name: &str) -> Option<PathBuf> {
        self.path.iter().map(|folder| folder.join(name)).find(|path| path.is_file())
    }
}

/// A kind and an engine that answers.
#[derive(Clone, Debug)]
pub struct Tools {
    pub kind: PathBuf,
    /// `docker` or `podman`.
    pub engine: String,
    program: PathBuf,
    environment: Vec<(String, String)>,
    image: Option<String>,
}

impl Tools {
    /// # Errors
    /// When kind is missing, or no engine is there, or none answers.
    pub async fn find(around: &Surroundings) -> Result<Self, KindError> {
        let kind = find_kind(around)?;
        let wanted: Vec<&str> = match &around.engine {
            Some(engine) => vec![engine.as_str()],
            None => vec!["docker", "podman"],
        };
        let mut down = None;
        for engine in wanted {
            let Some(program) = around.program(engine) else {
                if around.engine.is_some() {
                    down = Some(KindError::EngineDown { engine: engine.to_owned(), detail: "it is not on PATH".into() });
                }
                continue;
            };
            let tools = Tools {
                kind: kind.clone(),
                engine: engine.to_owned(),
                program,
                environment: environment(engine, around),
                image: around.image.clone(),
            };
            // Of docker the server's version: the client answers without one.
            let format = if engine == "docker" { "{{.Server.Version}}" } else { "{{.Client.Version}}" };
            let said = tools.ask_engine(&["version", "--format", format]).await;
            match said {
                Ok(said) if said.success => return Ok(tools),
                Ok(said) => _ = down.get_or_insert(KindError::of_silence(engine, tail(&said.errors))),
                Err(error) => _ = down.get_or_insert(KindError::EngineDown { engine: engine.to_owned(), detail: error.to_string() }),
            }
        }
        Err(down.unwrap_or(KindError::NoEngine))
    }

    pub async fn ask_engine(&self, arguments: &[&str]) -> Result<Said, KindError> {
        command::run(&self.program, arguments, &self.environment, ANSWER_WITHIN, |_| ()).await
    }

    pub async fn ask_kind(&self, arguments: &[&str]) -> Result<Said, KindError> {
        command::run(&self.kind, arguments, &self.environment, ANSWER_WITHIN, |_| ()).await
    }

    /// For work that takes longer than an answer.
    pub async fn have_kind(&self, arguments: &[&str], within: Duration, line: impl FnMut(&str)) -> Result<Said, KindError> {
        command::run(&self.kind, arguments, &self.environment, within, line).await
    }

    /// The node image: the one that was named, else the newest that was built here; `None`: the one that kind pulls by default.
    ///
    /// # Errors
    /// When the engine does not answer.
    pub async fn node_image(&self) -> Result<Option<String>, KindError> {
        if self.image.is_some() {
            return Ok(self.image.clone());
        }
        let said = self.ask_engine(&["images", "--format", "{{.Repository}}:{{.Tag}}"]).await?;
        Ok(newest_built(&said.checked("listing images")?))
    }
}

/// The kind that was named, else the one on PATH, else the one that was built here.
///
/// # Errors
/// When there is none.
pub fn find_kind(around: &Surroundings) -> Result<PathBuf, KindError> {
    let built = around.cache.join("kind-node-image/bin/kind");
    let candidates = match &around.kind {
        Some(given) => vec![given.clone()],
        None => around.program("kind").into_iter().chain([built.clone()]).collect(),
    };
    candidates.into_iter().find(|path| path.is_file()).ok_or_else(|| KindError::NoKind {
        searched: match &around.kind {
            Some(given) => format!("GATELAB_KIND, which is {}", given.display()),
            None => format!("PATH and {}", built.display()),
        },
    })
}

fn environment(engine: &str, around: &Surroundings) -> Vec<(String, String)> {
    let network = format!("KIND_EXPERIMENTAL_{}_NETWORK", engine.to_uppercase());
    let mut environment = vec![(ENGINE_VARIABLE.to_owned(), engine.to_owned()), (network, NETWORK.to_owned())];
    // Written by kind-config/podman/environment.sh; a setting of the user's own comes first.
    let settings = around.cache.join("podman/containers.conf");
    if engine == "podman" && !around.podman_configured && settings.is_file() {
        environment.push(("CONTAINERS_CONF".to_owned(), settings.display().to_string()));
    }
    environment
}

/// By version, not by text: v1.9 is older than v1.34.
fn newest_built(list: &str) -> Option<String> {
    let version =
        |tag: &str| tag.trim_start_matches('v').split(['.', '-']).map(|part| part.parse::<u32>().unwrap_or(0)).collect::<Vec<_>>();
    let names = list.lines().filter_map(|line| {
        let (repository, tag) = line.trim().rsplit_once(':')?;
        // Docker leaves `localhost/` in as well: it is part of the name there.
        (repository == BUILT_IMAGE && tag != "<none>").then(|| (version(tag), line.trim().to_owned()))
    });
    names.max().map(|(_, name)| name)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;
    use std::path::Path;

    use super::*;

    fn program(folder: &Path, name: &str, script: &str) {
        std::fs::create_dir_all(folder).unwrap();
        let path = folder.join(name);
        std::fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    }

    fn around(root: &Path) -> Surroundings {
        Surroundings { path: vec![root.join("bin")], cache: root.join("cache"), ..Surroundings::default() }
    }

    #[tokio::test]
    async fn without_kind_or_engine_what_is_missing_is_named() {
        let root = tempfile::tempdir().unwrap();
        let around = around(root.path());
        let error = Tools::find(&around).await.unwrap_err();
        assert!(matches!(&error, KindError::NoKind { searched } if searched.contains("cache/kind-node-image")), "{error}");
        assert!(error.hint().unwrap().contains("build.sh"));
        program(&root.path().join("cache/kind-node-image/bin"), "kind", "exit 0");
        assert!(matches!(Tools::find(&around).await, Err(KindError::NoEngine)));
        let asked_for = Surroundings { engine: Some("docker".into()), ..around.clone() };
        assert!(matches!(Tools::find(&asked_for).await, Err(KindError::EngineDown { detail, .. }) if detail.contains("PATH")));
        let given = Surroundings { kind: Some("/no/such/kind".into()), ..around };
        assert!(matches!(Tools::find(&given).await, Err(KindError::NoKind { searched }) if searched.contains("/no/such/kind")));
    }

    #[tokio::test]
    async fn an_engine_that_does_not_answer_gives_way_to_one_that_does() {
        let root = tempfile::tempdir().unwrap();
        let (bin, around) = (root.path().join("bin"), around(root.path()));
        program(&bin, "kind", "exit 0");
        program(&bin, "docker", "echo 'Cannot connect to the Docker daemon' >&2; exit 1");
        let error = Tools::find(&around).await.unwrap_err();
        assert!(
            matches!(&error, KindError::EngineDown { engine, detail } if engine == "docker" && detail.contains("Cannot connect")),
            "{error}"
        );
        program(&bin, "podman", "echo 4.3.1");
        assert_eq!(Tools::find(&around).await.unwrap().engine, "podman");
        let docker = Surroundings { engine: Some("docker".into()), ..around };
        assert!(Tools::find(&docker).await.is_err(), "an engine that was asked for is not replaced");
    }

    #[tokio::test]
    async fn the_newest_built_image_is_taken_and_a_named_one_before_it() {
        let root = tempfile::tempdir().unwrap();
        let (bin, around) = (root.path().join("bin"), around(root.path()));
        program(&bin, "kind", "exit 0");
        program(
            &bin,
            "podman",
            "case $1 in images) printf '%s\\n' localhost/gatelab/kind-node:v1.9.0 localhost/gatelab/kind-node:v1.34.4 \
             localhost/gatelab/kind-node:'<none>' docker.io/library/other:v2;; esac",
        );
        let tools = Tools::find(&around).await.unwrap();
        assert_eq!(tools.node_image().await.unwrap().as_deref(), Some("localhost/gatelab/kind-node:v1.34.4"));
        let named = Tools::find(&Surroundings { image: Some("mine:1".into()), ..around }).await.unwrap();
        assert_eq!(named.node_image().await.unwrap().as_deref(), Some("mine:1"));
        assert_eq!(newest_built("docker.io/kindest/node:v1.35.0\n"), None);
    }

    #[test]
    fn podman_gets_the_settings_made_for_it_unless_there_are_others() {
        let root = tempfile::tempdir().unwrap();
        let around = around(root.path());
        std::fs::create_dir_all(root.path().join("cache/podman")).unwrap();
        std::fs::write(root.path().join("cache/podman/containers.conf"), "").unwrap();
        let set = |engine: &str, around: &Surroundings| environment(engine, around).iter().any(|(name, _)| name == "CONTAINERS_CONF");
        assert!(set("podman", &around));
        assert!(!set("docker", &around));
        assert!(!set("podman", &Surroundings { podman_configured: true, ..around }));
    }
}
