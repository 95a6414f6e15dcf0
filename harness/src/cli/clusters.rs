//! From `--cluster` and what goes with it to the provider that is meant.

use std::sync::Arc;

use ::gateways::GatewayKind;

use super::arguments::{ClusterArgs, RunArgs};
use super::exit::Exit;
use super::failure::{Failure, nearest};
use super::gateways;
use crate::provider::context::{Chosen, tenancy};
use crate::provider::{Context, ContextOptions, Embedded, Kind, KindOptions, NamedImage, Provider, kind};
use crate::run::lab;
use crate::scenario::Plan;
use crate::scenario::model::Need;

/// What `--cluster` takes.
const PROVIDERS: [&str; 3] = ["embedded", "kind", "context:NAME"];
const CONTEXT: &str = "context:";
/// Of several nodes one is the control plane, which takes no pods.
const CONTROL_PLANE: u32 = 1;

/// Where clusters come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Choice {
    Embedded,
    Kind,
    /// Name of the context.
    Context(String),
}

impl Choice {
    pub fn of(cluster: &str) -> Result<Self, Failure> {
        match cluster {
            "embedded" => Ok(Choice::Embedded),
            "kind" => Ok(Choice::Kind),
            other if other.starts_with(CONTEXT) => Ok(Choice::Context(other[CONTEXT.len()..].to_owned())),
            other => {
                let failure = Failure::usage(format!("no clusters come from `{other}`; --cluster takes {}", PROVIDERS.join(", ")));
                Err(match nearest(other, PROVIDERS) {
                    Some(near) => failure.hint(format!("did you mean `{near}`?")),
                    None => failure,
                })
            }
        }
    }

    fn takes(&self, args: &ClusterArgs, of_kind: &[(&str, bool)]) -> Result<(), Failure> {
        if args.any_context && !matches!(self, Choice::Context(_)) {
            return Err(Failure::usage("--any-context goes with `--cluster context:NAME`"));
        }
        if !args.gateway_image.is_empty() && *self == Choice::Embedded {
            return Err(Failure::usage("the embedded cluster runs gateways of this machine, not images").hint(
                "`--gateway NAME@/path/to/binary` takes another build; --gateway-image goes with `--cluster kind` or `context:NAME`",
            ));
        }
        let nodes = [("--nodes", args.nodes.is_some())];
        match nodes.iter().chain(of_kind).find(|(_, given)| *given && *self != Choice::Kind) {
            Some((option, _)) => Err(Failure::usage(format!("{option} goes with `--cluster kind`, not with `--cluster {}`", args.cluster))),
            None => Ok(()),
        }
    }
}

/// For `run`: one that is gone afterwards, unless it was asked to stay.
pub fn for_runs(args: &RunArgs, plans: &[Plan], images: Vec<NamedImage>) -> Result<Arc<dyn Provider>, Failure> {
    let choice = Choice::of(&args.cluster.cluster)?;
    choice.takes(&args.cluster, &[("--reuse", args.reuse.is_some()), ("--retain", args.retain)])?;
    Ok(match choice {
        Choice::Embedded => Arc::new(Embedded),
        Choice::Kind => Arc::new(Kind::new(KindOptions {
            nodes: args.cluster.nodes.unwrap_or_else(|| nodes(plans)),
            clusters: args.jobs.map_or(1, |jobs| jobs as usize),
            reuse: args.reuse.clone(),
            retain: args.retain,
            name: None,
            images,
        })),
        Choice::Context(name) => context(&name, args.cluster.any_context, tenancy::new_mark(), plans, images)?,
    })
}

/// For `up`: one that stays. `cluster`: name of the cluster of kind, or mark in a cluster that is there already.
pub fn for_lab(args: &ClusterArgs, cluster: Option<String>, plan: &Plan, images: Vec<NamedImage>) -> Result<Arc<dyn Provider>, Failure> {
    let choice = Choice::of(&args.cluster)?;
    choice.takes(args, &[])?;
    let nodes = args.nodes.unwrap_or_else(|| nodes(std::slice::from_ref(plan)));
    Ok(match choice {
        Choice::Embedded => Arc::new(Embedded),
        Choice::Kind => Arc::new(Kind::new(KindOptions { nodes, name: cluster, images, ..KindOptions::default() })),
        Choice::Context(name) => {
            context(&name, args.any_context, cluster.unwrap_or_else(tenancy::new_mark), std::slice::from_ref(plan), images)?
        }
    })
}

fn context(name: &str, any: bool, mark: String, plans: &[Plan], images: Vec<NamedImage>) -> Result<Arc<dyn Provider>, Failure> {
    let chosen = Chosen::find(name, any).map_err(|error| match error.hint() {
        Some(hint) => Failure::usage(error.to_string()).hint(hint),
        None => Failure::usage(error.to_string()),
    })?;
    let around = kind::provider::surroundings().map_err(|error| Failure::from_error(Exit::Environment, &error))?;
    let namespaces = plans.iter().filter(|plan| plan.skip.is_none()).flat_map(lab::namespaces).collect();
    Ok(Arc::new(Context::new(ContextOptions { chosen, cache: around.cache, mark, namespaces, images })))
}

/// Why a gateway cannot be run in these clusters at all.
pub fn unfit(args: &ClusterArgs, kind: GatewayKind) -> Result<Option<String>, Failure> {
    let unfit = kind.image().is_some() && Choice::of(&args.cluster)? == Choice::Embedded;
    Ok(unfit.then(|| format!("the embedded cluster runs gateways of this machine, and {kind} comes as an image alone: `--cluster kind`")))
}

/// Gateways as `--gateway-image` names them or that come as an image anyway, and what is left of the choices for the lab to find by
/// itself.
///
/// # Errors
/// When a name is unknown, not among the gateways to run, or comes with a build as well.
pub fn named_images(args: &ClusterArgs, choices: &[gateways::Choice]) -> Result<(Vec<NamedImage>, Vec<gateways::Choice>), Failure> {
    let mut images: Vec<NamedImage> = Vec::new();
    for text in &args.gateway_image {
        let (name, image) = text.split_once('=').filter(|(_, image)| !image.is_empty()).ok_or_else(|| {
            Failure::usage(format!("`{text}` names no image"))
                .hint("`--gateway-image NAME=IMAGE`, for example NAME=registry.example/image:1.29")
        })?;
        let kind = gateways::kind(name)?;
        let choice = choices.iter().find(|choice| choice.kind == kind);
        let choice = choice.ok_or_else(|| Failure::usage(format!("{kind} has an image, and is not among the gateways to run")))?;
        if choice.build != gateways::Build::Any {
            return Err(Failure::usage(format!("{kind} has an image and another build: one of the two is enough")));
        }
        if images.iter().any(|other| other.kind == kind) {
            return Err(Failure::usage(format!("{kind} has two images"))
                .hint("run them one after the other, with `--out A` and `--out B`; `gatelab diff A B` shows what differs"));
        }
        images.push(NamedImage { kind, image: image.to_owned(), by_user: true });
    }
    for choice in choices {
        let named = images.iter().any(|named| named.kind == choice.kind);
        if let (Some(image), false, None) = (choice.kind.image(), named, unfit(args, choice.kind)?) {
            images.push(NamedImage { kind: choice.kind, image: image.to_owned(), by_user: false });
        }
    }
    let left = choices.iter().filter(|choice| choice.kind.image().is_none() && !images.iter().any(|named| named.kind == choice.kind));
    let left = left.cloned().collect();
    Ok((images, left))
}

/// As few as the scenarios can do with: a node more is 0.6 GB more and later to be ready.
fn nodes(plans: &[Plan]) -> u32 {
    let several = |plan: &&Plan| plan.needs.iter().any(|need| matches!(need, Need::SeveralNodes | Need::LinkLatency | Need::NodeCut));
    // Skipped there: the cluster's DNS stays where it is.
    let staged = |plan: &&Plan| plan.skip.is_none() && !plan.needs.contains(&Need::MovableDns);
    plans.iter().filter(staged).filter(several).map(|plan| plan.nodes + CONTROL_PLANE).max().unwrap_or(1)
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::cli::arguments::{Cli, Command};

    fn args(line: &[&str]) -> RunArgs {
        let cli = Cli::parse_from([&["gatelab", "run"], line].concat());
        let Command::Run(args) = cli.command else { panic!("{line:?}") };
        args
    }

    #[test]
    fn an_unknown_provider_is_a_mistake_of_the_caller() {
        let Err(failure) = for_runs(&args(&["--cluster", "embeded"]), &[], Vec::new()) else { panic!("there is no such provider") };
        assert_eq!((failure.exit, failure.hints), (Exit::Usage, vec!["did you mean `embedded`?".to_owned()]));
        let three = for_runs(&args(&["--cluster", "kind", "--nodes", "3"]), &[], Vec::new());
        assert_eq!(three.map(|provider| provider.name().to_owned()).ok(), Some("kind".into()));
        for line in [["--nodes", "3"], ["--reuse", "gatelab-1"], ["--gateway-image", "nginx=nginx:1"]] {
            let Err(failure) = for_runs(&args(&line), &[], Vec::new()) else { panic!("the embedded cluster takes no {line:?}") };
            assert_eq!(failure.exit, Exit::Usage);
            let said = [vec![failure.message], failure.hints].concat().join(" ");
            assert!(said.contains("--cluster kind"), "{said}");
        }
    }

    #[test]
    fn an_image_belongs_to_one_of_the_gateways_to_run_and_takes_its_place() {
        let named = |line: &[&str]| {
            let args = args(line);
            named_images(&args.cluster, &gateways::choices(&args.gateway, &args.cluster.gateway_image).unwrap())
        };
        let (images, left) =
            named(&["--gateway", "nginx,envoy", "--gateway-image", "nginx=registry.example:5000/nginx:1@sha256:0"]).unwrap();
        assert_eq!(
            images,
            [NamedImage { kind: "nginx".parse().unwrap(), image: "registry.example:5000/nginx:1@sha256:0".into(), by_user: true }]
        );
        assert_eq!(left, [gateways::Choice::any("envoy".parse().unwrap())]);
        // One that comes as an image has its own where nobody names another; on the embedded cluster it is not run.
        let (images, left) = named(&["--cluster", "kind", "--gateway", "ingress-nginx"]).unwrap();
        assert!(
            left.is_empty() && images.len() == 1 && !images[0].by_user && images[0].image.starts_with("registry.k8s.io/"),
            "{images:?}"
        );
        let (images, left) = named(&["--gateway", "ingress-nginx"]).unwrap();
        assert!(left.is_empty() && images.is_empty());
        for (line, part) in [
            (&["--gateway-image", "nginx"][..], "names no image"),
            (&["--gateway-image", "nginx="], "names no image"),
            (&["--gateway-image", "ngins=a"], "no gateway `ngins`"),
            (&["--gateway", "envoy", "--gateway-image", "nginx=a"], "not among the gateways"),
            (&["--gateway", "nginx@1.22", "--gateway-image", "nginx=a"], "another build"),
            (&["--gateway-image", "nginx=a", "--gateway-image", "nginx=b"], "two images"),
        ] {
            let failure = named(line).unwrap_err();
            assert_eq!(failure.exit, Exit::Usage);
            assert!(failure.message.contains(part), "{}", failure.message);
        }
    }

    fn plan(id: &str) -> Plan {
        let folder = std::path::Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../scenarios"));
        let (catalogue, _) = crate::scenario::catalogue::Catalogue::load(folder).unwrap();
        let entry = catalogue.entries().find(|entry| entry.scenario.id.value == id).unwrap();
        entry.plan("nginx", crate::scenario::Scale::Lab)
    }

    #[test]
    fn there_are_several_nodes_when_a_scenario_needs_them_and_one_is_enough_otherwise() {
        assert_eq!(nodes(&[plan("wrong-target-port")]), 1);
        assert_eq!(nodes(&[plan("wrong-target-port"), plan("premature-keepalive-close")]), 3);
        assert_eq!(nodes(&[plan("premature-keepalive-close"), plan("node-unreachable")]), 4);
    }

    #[test]
    fn a_scenario_is_skipped_where_fewer_nodes_take_pods_than_it_needs() {
        let lacks = |nodes: &str| {
            let provider = for_runs(&args(&["--cluster", "kind", "--nodes", nodes]), &[], Vec::new());
            provider.map(|provider| provider.setting().lacks(&plan("node-unreachable"))).ok().unwrap()
        };
        assert!(lacks("1").is_some_and(|reason| reason.contains("one node")));
        assert_eq!(lacks("3").as_deref(), Some("3 nodes that take pods are needed, and this cluster has 2"));
        assert_eq!(lacks("4"), None);
    }
}
