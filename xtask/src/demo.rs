//! `cargo xtask demo [--pair] [--keep] [--install]`: a whole site in network namespaces, with real requests
//! through a real lbd, or through two.

mod held;
mod pair;
mod stage;
mod table;
mod traffic;

use std::env;
use std::os::unix::process::CommandExt;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use clap::Args;
use lb_lab::signals;
use lb_lab::topology::Subnet;

use self::stage::{BACKENDS, Family, MACHINE_COUNT, PREFIX, SITES, ServerKind, Stage};
use self::table::{Align, Emphasis, Group, emphasise, format_grouped, format_rows, heading};
use self::traffic::{Phase, REQUEST_COUNT, Shares};
use crate::workspace::Workspace;
use crate::{build, packages, progress, run};

/// What may follow `cargo xtask demo`.
#[derive(Args)]
pub(crate) struct DemoArgs {
    /// Two nodes, of which one loses its power under traffic
    #[arg(long)]
    pair: bool,
    /// Leave everything standing, and print what one can do with it
    #[arg(long)]
    keep: bool,
    /// Install the Debian packages that the demo can use (nginx)
    #[arg(long)]
    install: bool,
    /// Take down what --keep has left standing
    #[arg(long, conflicts_with_all = ["keep", "install", "pair"])]
    down: bool,
    /// Everything is built (used when the demo starts itself again as root)
    #[arg(long, hide = true)]
    built: bool,
}

/// `cargo xtask demo`
pub(crate) fn task(workspace: &Workspace, args: &DemoArgs) -> Result<ExitCode> {
    if !args.down && !args.built {
        build::everything(workspace)?;
    }
    if !lb_lab::is_root() {
        return start_again_as_root();
    }
    if args.down {
        return down();
    }
    if args.install {
        packages::ensure(&packages::FOR_DEMO, "the demo uses them as real parts")?;
    }
    if let [missing, ..] = packages::missing_programs(&["ip"])[..] {
        bail!("the demo needs {missing}; run `cargo xtask demo --install`, which installs it");
    }
    signals::on_end_signal(|| {
        eprintln!("\ninterrupted: taking the demo down");
        if let Err(error) = stage::take_down() {
            eprintln!("error: {error:#}; run `cargo xtask demo --down`");
        }
    })?;
    if args.pair {
        pair::play(workspace, args)?;
    } else {
        play(workspace, args)?;
    }
    Ok(ExitCode::SUCCESS)
}

fn start_again_as_root() -> Result<ExitCode> {
    progress::step("asking sudo: the demo makes network namespaces and loads an XDP program");
    let xtask = env::current_exe().context("cannot find xtask's own program file")?;
    let error = run::as_root(xtask.as_os_str())
        .args(env::args_os().skip(1))
        .arg("--built")
        .exec();
    Err(error).context("cannot start sudo; run `cargo xtask demo` as root")
}

fn down() -> Result<ExitCode> {
    let was_there = stage::take_down()?;
    println!(
        "{}",
        if was_there {
            "the demo is taken down"
        } else {
            "no demo stands"
        }
    );
    Ok(ExitCode::SUCCESS)
}

/// The demo itself, once everything is built and allowed.
fn play(workspace: &Workspace, args: &DemoArgs) -> Result<()> {
    let servers = ServerKind::choose();
    progress::step(&format!(
        "making namespaces: a client, a load balancer, {MACHINE_COUNT} web servers ({})",
        servers.word()
    ));
    let mut stage = Stage::build(servers)?;
    show_network(&stage, servers);

    heading(&format!(
        "{REQUEST_COUNT} requests of each kind, each over a connection of its own"
    ));
    let shares = traffic::measure_shares(&stage).inspect_err(|_| show_log(&stage))?;
    print!("{}", shares_table(&shares));

    heading(&format!(
        "Changes under traffic: http://{}/, IPv4 and IPv6 at once",
        SITES[0].host
    ));
    let changed = traffic::change_under_load(&mut stage);
    let phases = changed.inspect_err(|_| show_log(&stage))?;
    print!("{}", format_rows(&phases_table(&phases), Align::Right));

    heading("What lbd counted (lbctl stats)");
    print_indented(&stage.lbd().ctl_ok(&["stats"])?);

    if args.keep {
        show_commands(workspace, &stage);
        stage.keep()?;
    } else {
        stage.end()?;
    }
    summarise(&shares, &phases, args);
    Ok(())
}

fn show_log(stage: &Stage) {
    eprintln!("log of lbd:\n{}", stage.lbd().log_tail());
}

fn show_network(stage: &Stage, servers: ServerKind) {
    heading("The network");
    let subnet = stage.net().client_subnet();
    let row = |cells: [&str; 4]| cells.map(str::to_owned).to_vec();
    let own = |name, host, role: &str| {
        row([
            name,
            &subnet.v4(host).to_string(),
            &subnet.v6(host).to_string(),
            role,
        ])
    };
    let mut rows = vec![
        own("client", 100, "sends the requests"),
        own("lb", 1, "lbd, native XDP on eth0"),
    ];
    for machine in &stage.net().backends {
        let joins_later = !BACKENDS.contains(&machine.name.as_str());
        let role = servers.word().to_owned()
            + if joins_later {
                ", in no service yet"
            } else {
                ""
            };
        rows.push(row([
            &machine.name,
            &machine.v4.to_string(),
            &machine.v6.to_string(),
            &role,
        ]));
    }
    for site in &SITES {
        let vips = Family::ALL.map(|family| site.vip(family).to_string());
        let role = format!(
            "VIPs of services {}, {}: {}",
            site.service(Family::V4),
            site.service(Family::V6),
            site.title
        );
        rows.push(row([site.host, &vips[0], &vips[1], &role]));
    }
    print!("{}", format_rows(&rows, Align::Left));
}

/// One row for each backend, one column for each site and family.
fn shares_table(shares: &[Shares]) -> String {
    let groups = SITES.map(|site| Group {
        titles: vec![site.host.to_owned(), site.title.to_owned()],
        column_count: Family::ALL.len(),
    });
    let row = |first: &str, cell: &dyn Fn(&Shares) -> String| {
        [first.to_owned()]
            .into_iter()
            .chain(shares.iter().map(cell))
            .collect()
    };
    let mut rows = vec![row("", &|share| share.family.word().to_owned())];
    for name in BACKENDS {
        rows.push(row(name, &|share| {
            share.counts.get(name).unwrap_or(&0).to_string()
        }));
    }
    rows.push(row("total", &|share| {
        share.counts.values().sum::<u32>().to_string()
    }));
    format_grouped(&groups, rows)
}

/// One row for each backend with its share of the answers, one column for each phase.
fn phases_table(phases: &[Phase]) -> Vec<Vec<String>> {
    let row = |first: &str, cell: &dyn Fn(&Phase) -> String| {
        [first.to_owned()]
            .into_iter()
            .chain(phases.iter().map(cell))
            .collect()
    };
    let mut rows = vec![row("", &|phase| phase.title.clone())];
    for number in 1..=MACHINE_COUNT {
        let name = format!("web{number}");
        rows.push(row(&name, &|phase| share_word(phase, &name)));
    }
    rows.push(row("answered", &|phase| phase.tally.ok_total().to_string()));
    rows.push(row("failed", &|phase| phase.tally.failed.to_string()));
    rows
}

fn share_word(phase: &Phase, backend: &str) -> String {
    match phase.tally.ok.get(backend) {
        None => "–".to_owned(),
        Some(count) => {
            let share = f64::from(*count) / f64::from(phase.tally.ok_total());
            format!("{:.0} %", share * 100.0)
        }
    }
}

fn print_indented(text: &str) {
    for line in text.lines() {
        println!("{}", format!("  {line}").trim_end());
    }
}

fn show_commands(workspace: &Workspace, stage: &Stage) {
    heading("It stays. Play with it (as root):");
    let lbctl = workspace.release("lbctl");
    let lbctl = workspace.short(&lbctl);
    let socket = stage.lbd().socket().display();
    let (www, rr) = (&SITES[0], &SITES[1]);
    let spare = Subnet::Backends.v4(12);
    println!("  ip netns exec {PREFIX}-client curl http://{}/", www.host);
    println!(
        "  ip netns exec {PREFIX}-client curl -6 http://{}/",
        rr.host
    );
    println!("  {lbctl} --socket {socket} status");
    println!("  {lbctl} --socket {socket} service list");
    println!("  {lbctl} --socket {socket} stats --watch");
    println!(
        "  {lbctl} --socket {socket} backend set {} web1 --weight 300",
        www.service(Family::V4)
    );
    println!(
        "  {lbctl} --socket {socket} backend add {} {spare} --name web2",
        www.service(Family::V4)
    );
    println!(
        "  cargo xtask demo --down      {}",
        emphasise(Emphasis::Dim, "# takes it down")
    );
}

fn summarise(shares: &[Shares], phases: &[Phase], args: &DemoArgs) {
    let answered: u32 = shares
        .iter()
        .flat_map(|share| share.counts.values())
        .sum::<u32>()
        + phases
            .iter()
            .map(|phase| phase.tally.ok_total())
            .sum::<u32>();
    let failed: u32 = phases.iter().map(|phase| phase.tally.failed).sum();
    let end = if args.keep {
        "it stands"
    } else {
        "everything is taken down again"
    };
    println!();
    if failed == 0 {
        println!(
            "{}",
            emphasise(
                Emphasis::Good,
                &format!("ok: {answered} requests, all answered; {end}")
            )
        );
        return;
    }
    println!(
        "{} {}",
        emphasise(
            Emphasis::Good,
            &format!("ok: {answered} requests answered; {end};")
        ),
        emphasise(
            Emphasis::Bad,
            &format!("{failed} failed, open at the moment of a change")
        )
    );
}
