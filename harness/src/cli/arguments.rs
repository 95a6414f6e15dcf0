//! What can be typed.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use super::container::ContainerCommand;
use super::exit;

/// Reproduces Kubernetes 502/503/504s on purpose: real gateways, one fault at a time, proven healthy before and after.
#[derive(Debug, Parser)]
#[command(
    name = "gatelab",
    version,
    propagate_version = true,
    max_term_width = 100,
    subcommand_required = true,
    arg_required_else_help = true
)]
pub struct Cli {
    #[command(flatten)]
    pub global: Global,
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Clone, Debug, Args)]
pub struct Global {
    /// Folder of scenarios; without it `./scenarios` where there is one, else the catalogue built into this program
    #[arg(long, global = true, value_name = "DIR", env = "GATELAB_SCENARIOS")]
    pub scenarios: Option<PathBuf>,
    /// Say nothing but results and errors
    #[arg(short, long, global = true)]
    pub quiet: bool,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run scenarios and prove what each fault does
    Run(RunArgs),
    /// List the scenarios
    List(ListArgs),
    /// Show a scenario: its story, and with --solution its cause and fix
    Show(ShowArgs),
    /// Check scenario files; every mistake is told at once
    Check(CheckArgs),
    /// Bring up a lab to work in by hand, healthy or broken
    Up(UpArgs),
    /// Print the path of a lab's kubeconfig
    Kubeconfig(LabArgs),
    /// Send a lab's probes and try each hop: green or red
    Status(StatusArgs),
    /// Take labs down
    Down(DownArgs),
    /// Say whether this machine can run labs, and what is missing
    Doctor(DoctorArgs),
    /// Show the gateways at hand, or fetch them
    Gateways(GatewaysArgs),
    /// Render the reports of an earlier run again
    Report(ReportArgs),
    /// What every gateway does under every fault, in one table
    Matrix(MatrixArgs),
    /// What differs between two runs, two builds or two gateways
    Diff(DiffArgs),
    /// Print completions for a shell
    Completions(CompletionsArgs),
    #[command(flatten)]
    Container(ContainerCommand),
}

#[derive(Clone, Debug, Args)]
pub struct ClusterArgs {
    /// Where clusters come from: `embedded`, `kind` for real Kubernetes in containers, or `context:NAME` for the cluster that a
    /// context of your kubeconfig leads to
    #[arg(long, value_name = "PROVIDER", default_value = "embedded")]
    pub cluster: String,
    /// With `--cluster kind`: nodes of the cluster; of several, one takes no pods. As few as the scenarios need without it
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=9))]
    pub nodes: Option<u32>,
    /// With `--cluster context:NAME`: also when the context does not look like a lab
    #[arg(long)]
    pub any_context: bool,
    /// With `--cluster kind` or `context:NAME`: run a gateway out of this image, which the cluster pulls or has, in place of the one
    /// that the lab packs; may be repeated
    #[arg(long, value_name = "NAME=IMAGE")]
    pub gateway_image: Vec<String>,
}

#[derive(Clone, Debug, Args)]
#[command(after_long_help = exit::TABLE, after_help = exit::TABLE)]
pub struct RunArgs {
    /// Scenarios to run; all without any
    #[arg(value_name = "ID")]
    pub ids: Vec<String>,
    /// Gateways to run them on: a name, `envoy@1.37`, or `nginx@/path/to/nginx`; may be repeated or given as a list. All without any
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    pub gateway: Vec<String>,
    #[command(flatten)]
    pub cluster: ClusterArgs,
    /// With `--cluster kind`: run in this cluster, which an earlier run has left
    #[arg(long, value_name = "CLUSTER", conflicts_with_all = ["nodes", "retain"])]
    pub reuse: Option<String>,
    /// With `--cluster kind`: leave the clusters there
    #[arg(long)]
    pub retain: bool,
    /// Runs at the same time; by default eight times the number of cores, at most 24. With `--cluster kind` as many clusters, by default
    /// one; in a cluster that is there already one run at a time
    #[arg(long, short, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=64))]
    pub jobs: Option<u32>,
    /// Run everything so many times
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub repeat: u32,
    /// Folder for events.jsonl and the reports; by default gatelab-out/<time>
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// Print the report as JSON on standard output
    #[arg(long)]
    pub json: bool,
    /// Use production time-outs instead of the scenarios' short ones (runs then take minutes)
    #[arg(long)]
    pub real_time: bool,
    /// Random seed of the order of runs
    #[arg(long, value_name = "N")]
    pub seed: Option<u64>,
    /// Leave the fault out: such a run must never be proven
    #[arg(long, hide = true, conflicts_with = "without_fix")]
    pub without_fault: bool,
    /// Leave the fix out: such a run must never be proven
    #[arg(long, hide = true)]
    pub without_fix: bool,
}

#[derive(Clone, Debug, Args)]
pub struct ListArgs {
    /// Print the list as JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Clone, Debug, Args)]
pub struct ShowArgs {
    /// Scenario to show
    #[arg(value_name = "ID")]
    pub id: String,
    /// Give everything away: hints, cause, explanation, fix, what each gateway does
    #[arg(long)]
    pub solution: bool,
    /// Print the whole scenario as JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Clone, Debug, Args)]
pub struct CheckArgs {
    /// Scenario files or folders; without any the catalogue in use
    #[arg(value_name = "PATH")]
    pub paths: Vec<PathBuf>,
}

#[derive(Clone, Debug, Args)]
pub struct UpArgs {
    /// Scenario whose application and gateway settings the lab gets
    #[arg(value_name = "ID", default_value = "wrong-target-port")]
    pub id: String,
    /// healthy: as it should be; fault: broken, for you to find out why
    #[arg(long, value_enum, default_value_t = LabPhase::Healthy)]
    pub phase: LabPhase,
    #[arg(long, value_name = "NAME", default_value_t = gateways::GatewayKind::ALL[0].to_string())]
    pub gateway: String,
    /// Name of the lab
    #[arg(long, value_name = "NAME", default_value = "lab")]
    pub name: String,
    #[command(flatten)]
    pub cluster: ClusterArgs,
    /// Use production time-outs instead of the scenario's short ones
    #[arg(long)]
    pub real_time: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LabPhase {
    Healthy,
    Fault,
}

#[derive(Clone, Debug, Args)]
pub struct LabArgs {
    /// Name of the lab; may be left out while there is only one
    #[arg(value_name = "NAME")]
    pub name: Option<String>,
}

#[derive(Clone, Debug, Args)]
pub struct StatusArgs {
    /// Name of the lab; may be left out while there is only one
    #[arg(value_name = "NAME")]
    pub name: Option<String>,
    /// Go on looking until interrupted
    #[arg(long, short)]
    pub watch: bool,
    /// Print the status as JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Clone, Debug, Args)]
pub struct DownArgs {
    /// Name of the lab; may be left out while there is only one
    #[arg(value_name = "NAME", conflicts_with = "all")]
    pub name: Option<String>,
    /// All of your labs
    #[arg(long)]
    pub all: bool,
}

#[derive(Clone, Debug, Args)]
pub struct DoctorArgs {
    /// Print what was found as JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Clone, Debug, Args)]
pub struct GatewaysArgs {
    #[command(subcommand)]
    pub command: Option<GatewaysCommand>,
    /// Print the gateways as JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Clone, Debug, Subcommand)]
pub enum GatewaysCommand {
    /// Fetch gateways into your cache folder; nothing is installed system-wide
    Install {
        /// Gateways to fetch, also with a version (`envoy@1.37`); all without any
        #[arg(value_name = "NAME")]
        names: Vec<String>,
    },
}

#[derive(Clone, Debug, Args)]
pub struct ReportArgs {
    /// Folder that `gatelab run` wrote
    #[arg(value_name = "DIR")]
    pub folder: PathBuf,
    /// Print the report as JSON on standard output
    #[arg(long)]
    pub json: bool,
    /// Where the time went: by kind of work, by run, and the chain of runs that the end had to wait for
    #[arg(long)]
    pub timing: bool,
}

#[derive(Clone, Debug, Args)]
pub struct MatrixArgs {
    /// Folder that `gatelab run` wrote: what was seen there. Without it: what the scenarios document
    #[arg(long, value_name = "DIR")]
    pub from: Option<PathBuf>,
    /// These gateways alone; may be repeated or given as a list
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    pub gateway: Vec<String>,
    #[arg(long, value_enum, default_value_t = TableFormat::Text)]
    pub format: TableFormat,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum TableFormat {
    Text,
    Markdown,
    Json,
}

#[derive(Clone, Debug, Args)]
#[command(after_help = "Exit codes: 0 alike, 1 different, 2 usage.")]
pub struct DiffArgs {
    /// Folder that `gatelab run` wrote, or one gateway's runs in it: DIR:GATEWAY
    #[arg(value_name = "A")]
    pub left: String,
    /// The same, for the other side
    #[arg(value_name = "B")]
    pub right: String,
    /// Print the differences as JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Clone, Debug, Args)]
pub struct CompletionsArgs {
    pub shell: clap_complete::Shell,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_arguments_contradict_nothing() {
        Cli::command().debug_assert();
    }

    /// Help of every command that people use, as they see it on a terminal of 100 columns.
    #[test]
    fn help() {
        let mut command = Cli::command().term_width(100);
        command.build();
        insta::assert_snapshot!("help", command.render_long_help());
        let names: Vec<String> = command
            .get_subcommands()
            .filter(|sub| !sub.is_hide_set() && sub.get_name() != "help")
            .map(|sub| sub.get_name().to_owned())
            .collect();
        assert!(!names.iter().any(|name| name == "backend"), "container commands stay out of sight");
        for name in names {
            let sub = command.find_subcommand_mut(&name).expect("just listed");
            insta::assert_snapshot!(format!("help_{name}"), sub.render_long_help());
        }
    }

    #[test]
    fn run_takes_lists_of_gateways() {
        let Command::Run(args) = Cli::parse_from(["gatelab", "run", "a", "b", "--gateway", "nginx,envoy", "-j3"]).command else { panic!() };
        assert_eq!((args.ids, args.gateway, args.jobs), (vec!["a".into(), "b".into()], vec!["nginx".into(), "envoy".into()], Some(3)));
        assert!(Cli::try_parse_from(["gatelab", "run", "--without-fault", "--without-fix"]).is_err());
        assert!(Cli::try_parse_from(["gatelab", "run", "--jobs", "0"]).is_err());
    }
}
