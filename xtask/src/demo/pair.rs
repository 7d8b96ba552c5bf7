//! `cargo xtask demo --pair`: two nodes, of which one loses its power under traffic.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use lb_lab::client::{Load, Tally};
use lb_lab::cluster::{ClusterText, GROUP, write_secret};
use lb_lab::lbd::Launch;
use lb_lab::scratch::ScratchDir;
use lb_lab::topology::{Balancers, NodeId};
use lb_lab::wait::wait_until;
use lb_lab::{Forward, Lbd, Plan, Topology, process};

use super::held::{Fate, Held};
use super::stage::{
    BACKENDS, Claim, Family, PORT, PREFIX, SITES, Server, ServerKind, scratch, services_config,
    start_server,
};
use super::table::{Align, Emphasis, emphasise, format_rows, heading};
use super::{DemoArgs, print_indented};
use crate::progress;
use crate::workspace::Workspace;

/// Between two advertisements.
const INTERVAL: Duration = Duration::from_millis(100);
/// Connections that are held open, in each family.
const HELD_COUNT: usize = 100;
/// Answers of each kind that a phase waits for.
const PHASE_ANSWER_COUNT: u32 = 400;
/// How long a phase may take.
const PHASE_TIMEOUT: Duration = Duration::from_secs(30);
/// How long the VIPs may take to be where they belong.
const MOVE_TIMEOUT: Duration = Duration::from_secs(30);

/// Two nodes with their servers. Dropping it ends the nodes first, the network last.
struct Pair {
    nodes: [Option<Lbd>; 2],
    servers: Vec<Server>,
    net: Topology,
    cluster: ClusterText,
    secret: ScratchDir,
    claim: Claim,
}

/// A stretch of the traffic.
struct Phase {
    title: String,
    held: Fate,
    new: Tally,
}

/// The demo itself, once everything is built and allowed.
pub(super) fn play(workspace: &Workspace, args: &DemoArgs) -> Result<()> {
    let servers = ServerKind::choose();
    progress::step(&format!(
        "making namespaces: a client, two load balancers, {} web servers ({})",
        BACKENDS.len(),
        servers.word()
    ));
    let mut pair = Pair::build(servers)?;
    let phases = tell(&mut pair).inspect_err(|_| eprintln!("{}", pair.logs()))?;

    heading("What the client saw");
    print!("{}", format_rows(&rows(&phases), Align::Right));
    if args.keep {
        pair.show_commands(workspace);
        pair.keep()?;
    }
    summarise(&phases, args)
}

/// The story: before, the plug, the power back, an orderly hand-over.
fn tell(pair: &mut Pair) -> Result<Vec<Phase>> {
    pair.wait_holder(NodeId::Lb1)?;
    pair.wait_caught_up()?;
    show_network(pair);
    heading("The VIPs, as lb1 sees them (lbctl vip list)");
    print_indented(&pair.lbd(NodeId::Lb1)?.ctl_ok(&["vip", "list"])?);
    heading("The peer of lb1 (lbctl peer status)");
    print_indented(&pair.lbd(NodeId::Lb1)?.ctl_ok(&["peer", "status"])?);

    heading("Under traffic");
    let addresses = Family::ALL.map(|family| SocketAddr::new(SITES[0].vip(family), PORT));
    let held = Held::open(&pair.net.client, &addresses, HELD_COUNT)?;
    let loads = addresses.map(|address| pair.net.client.start_load(address));
    let traffic = Traffic { held, loads };
    let mut phases = vec![traffic.phase("before")?];

    say("the plug of lb1 is pulled: both of its links go down, its processes die");
    let pulled = Instant::now();
    pair.power_off(NodeId::Lb1)?;
    pair.wait_holder(NodeId::Lb2)?;
    let moved_ms = pulled.elapsed().as_millis();
    say(&format!("lb2 has the VIPs {moved_ms} ms later"));
    phases.push(traffic.phase("lb1 without power")?);

    say("lb1 comes back, and knows nothing");
    pair.power_on(NodeId::Lb1)?;
    pair.wait_holder(NodeId::Lb1)?;
    say("lb1 has learnt what lb2 knows, and has taken the VIPs back");
    phases.push(traffic.phase("lb1 is back")?);
    pair.wait_caught_up()?;

    say(&format!("lbctl vip failover {GROUP}"));
    print_indented(&pair.lbd(NodeId::Lb1)?.ctl_ok(&["vip", "failover", GROUP])?);
    phases.push(traffic.phase("handed over")?);
    Ok(phases)
}

impl Pair {
    fn build(kind: ServerKind) -> Result<Self> {
        let claim = Claim::make()?;
        let backend_count = BACKENDS.len() as u8;
        let net = Topology::build(Plan {
            prefix: Some(PREFIX.to_owned()),
            ..Plan::pair(Forward::Dsr, Balancers::Pair, backend_count)
        })?;
        let servers = net.backends.iter();
        let servers = servers
            .map(|backend| start_server(kind, backend))
            .collect::<Result<_>>()?;
        let secret = scratch("secret")?;
        let vips = Family::ALL.map(|family| SITES[0].vip(family));
        let cluster = ClusterText {
            vips: vips.into(),
            interval: INTERVAL,
            heartbeat: INTERVAL,
            secret: write_secret(&secret)?,
        };
        let mut pair = Self {
            nodes: [None, None],
            servers,
            net,
            cluster,
            secret,
            claim,
        };
        for node in NodeId::ALL {
            pair.start(node)?;
        }
        Ok(pair)
    }

    fn start(&mut self, node: NodeId) -> Result<()> {
        // What the former one has left goes first.
        self.nodes[node as usize] = None;
        let head = self.cluster.of_node(&self.net, node);
        let config = head + &services_config(&self.net, &SITES[..1]);
        let directory = scratch(&node.to_string())?;
        let netns = self.net.node(node);
        let lbd = Lbd::launch_in(Launch::keeping(), directory, netns, &config)?;
        self.nodes[node as usize] = Some(lbd);
        Ok(())
    }

    fn lbd(&self, node: NodeId) -> Result<&Lbd> {
        let found = self.nodes[node as usize].as_ref();
        found.with_context(|| format!("{node} has no power"))
    }

    fn power_off(&mut self, node: NodeId) -> Result<()> {
        self.net.cut_links(node)?;
        self.net.node(node).kill_all()
    }

    fn power_on(&mut self, node: NodeId) -> Result<()> {
        self.nodes[node as usize] = None;
        self.net.replace_node(node)?;
        self.start(node)
    }

    /// Waits until a node has the VIPs on its interface.
    fn wait_holder(&self, node: NodeId) -> Result<()> {
        wait_until(&format!("{node} to have the VIPs"), MOVE_TIMEOUT, || {
            let mut ip = self.net.node(node).command("ip");
            let addresses = process::run(ip.args(["-o", "addr", "show"]))?;
            let mut vips = self.cluster.vips.iter();
            Ok(vips
                .all(|vip| addresses.contains(&format!(" {vip}/")))
                .then_some(()))
        })
    }

    /// Waits until each knows what the other one knows.
    fn wait_caught_up(&self) -> Result<()> {
        wait_until("both nodes to have caught up", MOVE_TIMEOUT, || {
            for node in NodeId::ALL {
                let status = self.lbd(node)?.ctl_ok(&["-o", "json", "peer", "status"])?;
                let is_so =
                    status.contains("\"is_up\": true") && !status.contains("\"behind\": \"");
                if !is_so {
                    return Ok(None);
                }
            }
            Ok(Some(()))
        })
    }

    fn logs(&self) -> String {
        let logs = NodeId::ALL.into_iter().zip(&self.nodes).map(|(node, lbd)| {
            let log = lbd.as_ref().map(Lbd::log_tail).unwrap_or_default();
            format!("log of lbd of {node}:\n{log}")
        });
        logs.collect::<Vec<_>>().join("\n")
    }

    fn show_commands(&self, workspace: &Workspace) {
        heading("It stays. Play with it (as root):");
        let lbctl = workspace.release("lbctl");
        let lbctl = workspace.short(&lbctl);
        println!(
            "  ip netns exec {PREFIX}-client curl http://{}/",
            SITES[0].vip(Family::V4)
        );
        let sockets = NodeId::ALL
            .into_iter()
            .filter_map(|node| self.lbd(node).ok());
        for lbd in sockets {
            let socket = lbd.socket().display();
            println!("  {lbctl} --socket {socket} vip list");
            println!("  {lbctl} --socket {socket} peer status");
            println!("  {lbctl} --socket {socket} vip failover {GROUP}");
        }
        println!("  cargo xtask demo --down");
    }

    fn keep(mut self) -> Result<()> {
        self.nodes.iter_mut().flatten().for_each(Lbd::keep);
        self.servers.iter_mut().for_each(Server::keep);
        self.net.keep();
        self.secret.keep();
        self.claim.keep()
    }
}

/// Connections that are held, and new ones all the time.
struct Traffic {
    held: Held,
    loads: [Load; 2],
}

impl Traffic {
    /// Counts from the end of the last phase until there were enough answers since now.
    fn phase(&self, title: &str) -> Result<Phase> {
        let answered = || self.loads.each_ref().map(|load| load.tally().ok_total());
        let (before, held_before) = (answered(), self.held.look().answered);
        wait_until(&format!("answers ({title})"), PHASE_TIMEOUT, || {
            let mut pairs = answered().into_iter().zip(before);
            let is_enough = pairs.all(|(now, then)| now >= then + PHASE_ANSWER_COUNT);
            let held = self.held.look().answered - held_before;
            Ok((is_enough && held >= PHASE_ANSWER_COUNT as usize).then_some(()))
        })?;
        let mut new = Tally::default();
        for load in &self.loads {
            let part = load.take();
            for (backend, count) in part.ok {
                *new.ok.entry(backend).or_default() += count;
            }
            new.failed += part.failed;
        }
        Ok(Phase {
            title: title.to_owned(),
            held: self.held.take(),
            new,
        })
    }
}

fn say(text: &str) {
    println!("  {text}");
}

fn show_network(pair: &Pair) {
    heading("The network");
    let subnet = pair.net.client_subnet();
    let own = |name: &str, host, role: &str| {
        [
            name,
            &subnet.v4(host).to_string(),
            &subnet.v6(host).to_string(),
            role,
        ]
        .map(str::to_owned)
        .to_vec()
    };
    let mut rows = vec![own("client", 100, "sends the requests")];
    for node in NodeId::ALL {
        let role = format!("lbd; its link to the other one is {}", node.sync_address());
        rows.push(own(&node.to_string(), node.host(), &role));
    }
    for machine in &pair.net.backends {
        let (v4, v6) = (machine.v4.to_string(), machine.v6.to_string());
        rows.push(
            [&machine.name, &v4, &v6, "web server"]
                .map(str::to_owned)
                .to_vec(),
        );
    }
    let vips = Family::ALL.map(|family| SITES[0].vip(family).to_string());
    rows.push(
        [SITES[0].host, &vips[0], &vips[1], "the VIPs"]
            .map(str::to_owned)
            .to_vec(),
    );
    print!("{}", format_rows(&rows, Align::Left));
}

/// One column for each phase.
fn rows(phases: &[Phase]) -> Vec<Vec<String>> {
    let row = |first: &str, cell: &dyn Fn(&Phase) -> String| -> Vec<String> {
        [first.to_owned()]
            .into_iter()
            .chain(phases.iter().map(cell))
            .collect()
    };
    vec![
        row("", &|phase| phase.title.clone()),
        row("connections held open", &|phase| {
            phase.held.held.to_string()
        }),
        row("… of these broken", &|phase| {
            phase.held.broken.to_string()
        }),
        row("… requests answered", &|phase| {
            phase.held.answered.to_string()
        }),
        row("… longest wait", &|phase| {
            format!("{} ms", phase.held.longest_wait.as_millis())
        }),
        row("new connections", &|phase| phase.new.ok_total().to_string()),
        row("… failed", &|phase| phase.new.failed.to_string()),
    ]
}

fn summarise(phases: &[Phase], args: &DemoArgs) -> Result<()> {
    let broken: usize = phases.iter().map(|phase| phase.held.broken).sum();
    let held = phases.first().map_or(0, |phase| phase.held.held);
    let end = if args.keep {
        "it stands"
    } else {
        "everything is taken down again"
    };
    if broken > 0 {
        bail!("{broken} of {held} connections broke; {end}");
    }
    println!();
    let text = format!("ok: all of {held} connections went on; {end}");
    println!("{}", emphasise(Emphasis::Good, &text));
    Ok(())
}

/// Whether a namespace is one of a pair's balancers.
pub(super) fn is_node(name: &str) -> bool {
    NodeId::ALL
        .iter()
        .any(|node| name.ends_with(&format!("-{node}")))
}
