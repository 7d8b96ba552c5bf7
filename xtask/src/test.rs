//! `cargo xtask test [unit|bpf|e2e] [FILTER]`: runs the layers, streams their output, and counts.
//! `cargo xtask test disruption`, `detection`, `hostile`, `failover`, `soak` and `sim`: the proofs, each a program of its
//! own ([`proof`]).

mod proof;
mod summary;

use std::fs;
use std::io::{BufRead, BufReader, Write, stdout};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, ExitStatus, Stdio};

use anyhow::{Context, Result, bail, ensure};
use clap::{Args, ValueEnum};
use lb_lab::requirement::SKIP_LOG_VARIABLE;

use self::summary::Summary;
use crate::packages::Policy;
use crate::run::PRESERVED_ENV;
use crate::toolchain::Rustc;
use crate::workspace::Workspace;
use crate::{build, cargo, packages, progress};

/// Everything that the laboratory can be built with.
const LAB_FEATURES: &str = "bench,e2e";
/// End-to-end tests at a time: each builds a network and starts several servers.
const E2E_THREADS: &str = "2";

/// What may follow `cargo xtask test`.
#[derive(Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct TestArgs {
    #[command(subcommand)]
    proof: Option<proof::Proof>,
    /// The layer (unit, bpf or e2e; all by default), then a part of the names of the tests to run,
    /// or the name of one of the layer's test files (`lab` for e2e_lab.rs)
    #[arg(value_name = "LAYER | FILTER", num_args = 0..=2)]
    words: Vec<String>,
    /// Install no Debian packages; tests that lack a program are skipped and named
    #[arg(long)]
    no_install: bool,
}

/// A kind of tests, by what it needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Layer {
    /// Plain tests of the workspace.
    Unit,
    /// Tests that load the XDP program: root.
    Bpf,
    /// Tests in network namespaces with real servers: root, and Debian packages.
    E2e,
}

impl Layer {
    const ALL: [Self; 3] = [Self::Unit, Self::Bpf, Self::E2e];

    /// The feature of lb-lab, and the start of the names of its test files.
    fn word(self) -> &'static str {
        match self {
            Self::Unit => "unit",
            Self::Bpf => "bpf",
            Self::E2e => "e2e",
        }
    }
}

/// Which tests to run.
#[derive(Debug, PartialEq, Eq)]
struct Selection {
    layers: Vec<Layer>,
    filter: Option<String>,
}

impl Selection {
    /// Of one or two words, the first is a layer if it is the name of one.
    fn parse(words: &[String]) -> Result<Self> {
        let layer = words
            .first()
            .and_then(|word| Layer::from_str(word, false).ok());
        match (layer, words) {
            (Some(layer), [_, rest @ ..]) => Ok(Self {
                layers: vec![layer],
                filter: rest.first().cloned(),
            }),
            (None, [] | [_]) => Ok(Self {
                layers: Layer::ALL.into(),
                filter: words.first().cloned(),
            }),
            (_, words) => bail!("{:?} is no layer; layers are unit, bpf and e2e", words[0]),
        }
    }
}

/// `cargo xtask test`
pub(crate) fn task(workspace: &Workspace, args: &TestArgs) -> Result<ExitCode> {
    if let Some(proof) = &args.proof {
        return proof::run(workspace, proof);
    }
    let selection = Selection::parse(&args.words)?;
    let mut total = Summary::default();
    let policy = if args.no_install {
        Policy::Refuse
    } else {
        Policy::Install
    };
    for layer in &selection.layers {
        let outcome = run_layer(workspace, *layer, &selection, policy);
        total.add(outcome.unwrap_or_else(|error| {
            eprintln!("error: {error:#}");
            Summary::failure(&format!("the {} layer did not run: {error}", layer.word()))
        }));
    }
    if let (Some(filter), true) = (&selection.filter, total.is_empty()) {
        total.add(Summary::failure(&format!("no test matches {filter:?}")));
    }
    print!("{total}");
    Ok(if total.has_failed() {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    })
}

fn run_layer(
    workspace: &Workspace,
    layer: Layer,
    selection: &Selection,
    policy: Policy,
) -> Result<Summary> {
    prepare(workspace, layer, policy)?;
    progress::step(&format!("running the {} tests", layer.word()));
    let skip_log = fresh_skip_log(workspace)?;
    let (targets, name_filter) = choose_targets(workspace, layer, selection.filter.as_deref())?;
    let mut summary = Summary::default();
    for mut command in test_commands(workspace, layer, &targets)? {
        command.env(SKIP_LOG_VARIABLE, &skip_log);
        command.arg("--").args(name_filter);
        if layer == Layer::E2e {
            command.args(["--test-threads", E2E_THREADS]);
        }
        let (mut part, status) = stream(command)?;
        part.check(layer.word(), status, selection.filter.as_deref());
        summary.add(part);
    }
    summary.take_skip_log(&fs::read_to_string(&skip_log).unwrap_or_default());
    Ok(summary)
}

/// Builds what the layer's tests load or start, and brings what they use.
fn prepare(workspace: &Workspace, layer: Layer, policy: Policy) -> Result<()> {
    match layer {
        Layer::Unit => Ok(()),
        Layer::Bpf => build::bpf_objects(workspace),
        Layer::E2e => {
            build::everything(workspace)?;
            match policy {
                Policy::Refuse => Ok(()),
                Policy::Install => {
                    packages::ensure(&packages::FOR_TESTS, "the tests use them as real parts")
                }
            }
        }
    }
}

/// The test files to run, and the filter for the names of the tests in them. A filter that is the name
/// of a file, with or without the layer's prefix, stands for that file. The unit layer has no files of
/// its own: it is the workspace.
fn choose_targets<'a>(
    workspace: &Workspace,
    layer: Layer,
    filter: Option<&'a str>,
) -> Result<(Vec<String>, Option<&'a str>)> {
    if layer == Layer::Unit {
        return Ok((Vec::new(), filter));
    }
    let targets = test_targets(&workspace.root().join("tests/tests"), layer)?;
    match filter.and_then(|filter| target_named(&targets, layer, filter)) {
        Some(target) => Ok((vec![target], None)),
        None => Ok((targets, filter)),
    }
}

fn target_named(targets: &[String], layer: Layer, name: &str) -> Option<String> {
    let full_name = format!("{}_{name}", layer.word());
    targets
        .iter()
        .find(|target| *target == name || **target == full_name)
        .cloned()
}

/// What to run for a layer, one after the other.
fn test_commands(workspace: &Workspace, layer: Layer, targets: &[String]) -> Result<Vec<Command>> {
    if layer == Layer::Unit {
        return Ok(unit_commands(workspace));
    }
    let mut command = cargo_test(workspace);
    command.args(["--package", "lb-lab", "--features", layer.word()]);
    command.args(targets.iter().flat_map(|target| ["--test", target]));
    let mut commands = vec![command];
    if layer == Layer::Bpf {
        commands.push(engine_command(workspace));
    }
    if !lb_lab::is_root() {
        let runner = Rustc::ask(workspace)?.runner_variable();
        for command in &mut commands {
            command.env(&runner, format!("sudo {PRESERVED_ENV} --"));
        }
    }
    Ok(commands)
}

/// The workspace, and the laboratory with all of its parts, which plain cargo does not build: their own
/// tests need no root either.
fn unit_commands(workspace: &Workspace) -> Vec<Command> {
    let mut plain = cargo_test(workspace);
    plain.args(["--workspace", "--exclude", "lb-lab"]);
    let mut lab = cargo_test(workspace);
    lab.args(["--package", "lb-lab", "--features", LAB_FEATURES]);
    lab.args(["--lib", "--bins", "--test", "datapath"]);
    vec![plain, lab, sim_command(workspace)]
}

/// The short forms of the simulator, thousands of histories, and of the hostile peers, which want optimised programs.
fn sim_command(workspace: &Workspace) -> Command {
    let mut sim = cargo_test(workspace);
    sim.args(["--release", "--package", "lb-lab", "--features", "sim"]);
    sim.args(["--bin", "lb-sim", "--bin", "lb-hostile"]);
    sim
}

/// The engine with the XDP program in it.
fn engine_command(workspace: &Workspace) -> Command {
    let mut engine = cargo_test(workspace);
    engine.args(["--package", "lb-userspace", "--features", "bpf"]);
    engine.args(["--test", "engine"]);
    engine
}

fn cargo_test(workspace: &Workspace) -> Command {
    let mut command = cargo::command(workspace, "test");
    command.arg("--no-fail-fast");
    command
}

/// The names of the layer's test files: `bpf_*.rs`, or `e2e_*.rs`.
fn test_targets(directory: &Path, layer: Layer) -> Result<Vec<String>> {
    let prefix = format!("{}_", layer.word());
    let entries =
        fs::read_dir(directory).with_context(|| format!("cannot list {}", directory.display()))?;
    let mut names: Vec<String> = entries
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter_map(|name| name.strip_suffix(".rs").map(str::to_owned))
        .filter(|name| name.starts_with(&prefix))
        .collect();
    ensure!(
        !names.is_empty(),
        "no test file {prefix}*.rs in {}",
        directory.display()
    );
    names.sort();
    Ok(names)
}

fn fresh_skip_log(workspace: &Workspace) -> Result<PathBuf> {
    let path = workspace.target().join("skipped-tests.log");
    fs::write(&path, "").with_context(|| format!("cannot write {}", path.display()))?;
    Ok(path)
}

/// Runs the tests, passes their output on line by line, and counts.
fn stream(mut command: Command) -> Result<(Summary, ExitStatus)> {
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .context("cannot start cargo")?;
    let output = child.stdout.take().context("cargo's output is not piped")?;
    let mut summary = Summary::default();
    let mut shown = stdout().lock();
    for line in BufReader::new(output).split(b'\n') {
        let line = line.context("cannot read the tests' output")?;
        let line = String::from_utf8_lossy(&line);
        writeln!(shown, "{line}")?;
        summary.take_line(&line);
    }
    let status = child.wait().context("cannot wait for cargo")?;
    Ok((summary, status))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(words: &[&str]) -> Result<Selection> {
        Selection::parse(
            &words
                .iter()
                .map(|word| (*word).to_owned())
                .collect::<Vec<_>>(),
        )
    }

    fn selection(layers: &[Layer], filter: Option<&str>) -> Selection {
        Selection {
            layers: layers.to_vec(),
            filter: filter.map(str::to_owned),
        }
    }

    #[test]
    fn first_word_is_a_layer_or_a_filter_for_all_layers() {
        assert_eq!(parse(&[]).unwrap(), selection(&Layer::ALL, None));
        assert_eq!(parse(&["bpf"]).unwrap(), selection(&[Layer::Bpf], None));
        assert_eq!(
            parse(&["e2e", "drain"]).unwrap(),
            selection(&[Layer::E2e], Some("drain"))
        );
        assert_eq!(
            parse(&["drain"]).unwrap(),
            selection(&Layer::ALL, Some("drain"))
        );
        assert!(parse(&["drain", "e2e"]).is_err());
    }

    #[test]
    fn test_files_are_found_by_their_layer() {
        let directory = lb_lab::scratch::ScratchDir::new("targets").unwrap();
        for name in [
            "e2e_nat.rs",
            "e2e_dsr.rs",
            "bpf_fixtures.rs",
            "support.rs",
            "e2e_notes.md",
        ] {
            directory.write(name, "").unwrap();
        }
        let found = |layer| test_targets(directory.path(), layer).unwrap();
        assert_eq!(found(Layer::E2e), ["e2e_dsr", "e2e_nat"]);
        assert_eq!(found(Layer::Bpf), ["bpf_fixtures"]);
        let named = |name| target_named(&found(Layer::E2e), Layer::E2e, name);
        assert_eq!(named("nat").as_deref(), Some("e2e_nat"));
        assert_eq!(named("e2e_dsr").as_deref(), Some("e2e_dsr"));
        assert_eq!(named("drain"), None);
    }
}
