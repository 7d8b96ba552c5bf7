//! The balancer is a machine of its own: what is not for a service is untouched, before, during and
//! after lbd's life, however that ends.

use std::net::{IpAddr, SocketAddr};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::time::Duration;

use lb_lab::client::Tally;
use lb_lab::echo::{EchoConnection, EchoServer};
use lb_lab::nginx::Nginx;
use lb_lab::observe::{self, Address};
use lb_lab::service::{self, ServiceText};
use lb_lab::site::web_servers;
use lb_lab::topology::{VIP_V4, VIP_V6};
use lb_lab::wait::wait_until;
use lb_lab::{Forward, Interfaces, Lbd, Plan, Site, Topology, http, netns, require};
use nix::sys::signal::Signal;

const VIPS: [IpAddr; 2] = [VIP_V4, VIP_V6];

/// How long lbd may take to take everything down.
const STOP_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a load may take to see a change: a request in vain takes three seconds.
const LOAD_TIMEOUT: Duration = Duration::from_secs(20);

/// The balancer's machine as its owner sees it: somebody is logged in over each address family.
struct Host {
    logins: Vec<EchoConnection>,
    server: EchoServer,
    addresses: Vec<Vec<Address>>,
}

impl Host {
    /// To be called before lbd is started.
    fn log_in(net: &Topology) -> Self {
        let server = EchoServer::start(&net.lb).unwrap();
        let logins = VIPS.map(|vip| {
            let own = server.at(net.lb_address_like(vip));
            EchoConnection::open(net.client.netns(), own).unwrap()
        });
        Self {
            logins: logins.into(),
            server,
            addresses: addresses(net),
        }
    }

    /// The logins are alive, new ones are possible, and the machine answers pings.
    fn is_untouched(&mut self, net: &Topology, when: &str) {
        for login in &mut self.logins {
            login.say(when).unwrap();
        }
        for vip in VIPS {
            let own = net.lb_address_like(vip);
            observe::ping(net.client.netns(), own).unwrap();
            let mut login = EchoConnection::open(net.client.netns(), self.server.at(own)).unwrap();
            login.say(when).unwrap();
        }
    }

    /// Nothing of lbd is left: no program, and the addresses that were there before.
    fn is_as_before(&mut self, net: &Topology) {
        assert_eq!(xdp_modes(net), vec![None; net.lb_interfaces().len()]);
        assert_eq!(addresses(net), self.addresses);
        self.is_untouched(net, "as before");
    }
}

fn addresses(net: &Topology) -> Vec<Vec<Address>> {
    let interfaces = net.lb_interfaces().iter();
    interfaces
        .map(|interface| observe::addresses(&net.lb, interface).unwrap())
        .collect()
}

/// The names of the files in a directory.
fn files(directory: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(directory).unwrap();
    let mut names: Vec<String> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

fn xdp_modes(net: &Topology) -> Vec<Option<&'static str>> {
    let interfaces = net.lb_interfaces().iter();
    interfaces
        .map(|interface| observe::xdp_mode(&net.lb, interface).unwrap())
        .collect()
}

/// Whether a VIP is on one of the balancer's interfaces, as a host address.
fn has_vip(net: &Topology, vip: IpAddr) -> bool {
    let prefix_len = if vip.is_ipv4() { 32 } else { 128 };
    addresses(net).concat().contains(&(vip, prefix_len))
}

fn services(net: &Topology) -> String {
    let web = |name, vip| ServiceText::new(net, name, vip).backends(net, &["web1", "web2"]);
    service::config(net, &[web("v4", VIP_V4), web("v6", VIP_V6)])
}

fn serves(net: &Topology) {
    for vip in VIPS {
        let counts = net.client.http_get_many(SocketAddr::new(vip, 80), 40);
        let counts = counts.unwrap();
        assert!(counts.len() == 2, "{vip} is not balanced: {counts:?}");
    }
}

fn outlives_everything(forward: Forward, interfaces: Interfaces) {
    if require(&["ip", "nginx", "ping"]).is_missing() {
        return;
    }
    let net = Topology::build(Plan::new(forward, interfaces, 2)).unwrap();
    let _nginx: Vec<Nginx> = web_servers(&net).unwrap();
    let mut host = Host::log_in(&net);
    let mut lbd = Lbd::start(&net.lb, &services(&net)).unwrap();
    serves(&net);
    host.is_untouched(&net, "while lbd serves");
    for vip in VIPS {
        observe::ping(net.client.netns(), vip).unwrap();
    }

    lbd.kill9().unwrap();
    assert_eq!(
        xdp_modes(&net),
        vec![Some("native"); net.lb_interfaces().len()]
    );
    serves(&net);
    host.is_untouched(&net, "after kill -9");

    lbd.restart(&net.lb).unwrap();
    serves(&net);
    host.is_untouched(&net, "while the next lbd serves");

    assert!(lbd.terminate().unwrap().success(), "{}", lbd.log_tail());
    assert_eq!(files(lbd.directory()), ["lbd.log", "lbd.toml"]);
    host.is_as_before(&net);
}

#[test]
fn host_outlives_a_killed_and_a_stopped_lbd_with_dsr_over_one_interface() {
    outlives_everything(Forward::Dsr, Interfaces::One);
}

#[test]
fn host_outlives_a_killed_and_a_stopped_lbd_with_nat_over_two_interfaces() {
    outlives_everything(Forward::Nat, Interfaces::Two);
}

#[test]
fn host_without_a_service_stays_reachable_and_ctrl_c_leaves_nothing() {
    if require(&["ip", "ping"]).is_missing() {
        return;
    }
    let net = Topology::build(Plan::new(Forward::Nat, Interfaces::Two, 1)).unwrap();
    let mut host = Host::log_in(&net);
    let mut lbd = Lbd::start_without_config(&net.lb, net.lb_interfaces()).unwrap();
    assert_eq!(xdp_modes(&net), [Some("native"); 2]);
    assert_eq!(addresses(&net), host.addresses);
    host.is_untouched(&net, "without a service");
    let hint = format!("--socket {} service add", lbd.socket().display());
    assert!(lbd.log().contains(&hint), "{}", lbd.log());

    lbd.process().signal(Signal::SIGINT).unwrap();
    let status = lbd.process().wait(STOP_TIMEOUT).unwrap();
    assert!(status.success(), "{}", lbd.log_tail());
    assert!(!lbd.socket().exists());
    host.is_as_before(&net);
}

/// The reply of a NAT backend is told by its address and port alone: the balancer's own connections to
/// it must come home all the same.
#[test]
fn balancer_itself_can_use_the_backends_that_it_balances_with_nat() {
    if require(&["ip", "nginx"]).is_missing() {
        return;
    }
    for interfaces in [Interfaces::One, Interfaces::Two] {
        let net = Topology::build(Plan::new(Forward::Nat, interfaces, 2)).unwrap();
        let _nginx = web_servers(&net).unwrap();
        let _lbd = Lbd::start(&net.lb, &services(&net)).unwrap();
        serves(&net);
        for vip in VIPS {
            for backend in &net.backends {
                let address = SocketAddr::new(backend.address_like(vip), 80);
                let answer = net.lb.run(|| http::get(&address.into(), "/")).unwrap();
                assert_eq!(answer.unwrap().backend, backend.name, "{interfaces:?}");
            }
        }
        serves(&net);
    }
}

/// While the host has a VIP and no program is attached, it answers a client of the VIP with a reset: so
/// the VIP comes last and goes first, and clients of a stopped lbd hear nothing, but no reset.
#[test]
fn stopping_and_starting_lbd_resets_no_client() {
    if require(&["ip", "nginx"]).is_missing() {
        return;
    }
    let net = Topology::build(Plan::new(Forward::Dsr, Interfaces::One, 2)).unwrap();
    let _nginx = web_servers(&net).unwrap();
    let mut lbd = Lbd::start(&net.lb, &services(&net)).unwrap();
    let loads = VIPS.map(|vip| net.client.start_load(SocketAddr::new(vip, 80)));
    let all_have = |what: &str, has: fn(&Tally) -> bool| {
        wait_until(what, LOAD_TIMEOUT, || {
            let all = loads.iter().all(|load| has(&load.tally()));
            Ok(all.then_some(()))
        })
        .unwrap();
    };
    all_have("answers", |tally| tally.ok_total() >= 100);
    assert!(lbd.terminate().unwrap().success());
    all_have("requests in vain", |tally| tally.failed > 0);
    loads.iter().for_each(|load| {
        let before = load.take();
        assert!(
            before.reasons.iter().all(|reason| is_silence(reason)),
            "{before:?}"
        );
    });
    lbd.restart(&net.lb).unwrap();
    all_have("answers again", |tally| tally.ok_total() >= 100);
    for load in loads {
        let after = load.stop().unwrap();
        assert!(
            after.reasons.iter().all(|reason| is_silence(reason)),
            "{after:?}"
        );
    }
}

/// Whether a request failed because nobody answered.
fn is_silence(reason: &str) -> bool {
    !reason.contains("reset") && !reason.contains("refused")
}

#[test]
fn address_that_was_there_before_stays_when_lbd_stops() {
    if require(&["ip", "nginx"]).is_missing() {
        return;
    }
    let net = Topology::build(Plan::new(Forward::Dsr, Interfaces::One, 2)).unwrap();
    let _nginx = web_servers(&net).unwrap();
    net.lb
        .ip(&format!("addr add {VIP_V4}/32 dev eth0"))
        .unwrap();
    let mut lbd = Lbd::start(&net.lb, &services(&net)).unwrap();
    serves(&net);
    assert!(lbd.terminate().unwrap().success());
    assert!(has_vip(&net, VIP_V4) && !has_vip(&net, VIP_V6));
}

#[test]
fn vips_are_left_to_others_with_manage_vips_off() {
    if require(&["ip", "nginx"]).is_missing() {
        return;
    }
    let net = Topology::build(Plan::new(Forward::Dsr, Interfaces::One, 2)).unwrap();
    let _nginx = web_servers(&net).unwrap();
    let config = services(&net).replacen("[node]", "[node]\nmanage_vips = false", 1);
    let _lbd = Lbd::start(&net.lb, &config).unwrap();
    assert!(!has_vip(&net, VIP_V4) && !has_vip(&net, VIP_V6));
    net.lb
        .ip(&format!(
            "addr add {VIP_V4}/32 dev eth0\naddr add {VIP_V6}/128 dev eth0 nodad"
        ))
        .unwrap();
    wait_until("the first answer", STOP_TIMEOUT, || {
        let answers = VIPS.map(|vip| net.client.http_get(SocketAddr::new(vip, 80)).is_ok());
        Ok((answers == [true; 2]).then_some(()))
    })
    .unwrap();
    serves(&net);
}

#[test]
fn site_is_gone_with_all_that_runs_in_it_after_a_panic_too() {
    if require(&["ip", "nginx"]).is_missing() {
        return;
    }
    let site = Site::start(Plan::new(Forward::Nat, Interfaces::Two, 2), |net| {
        vec![ServiceText::new(net, "v4", VIP_V4).backends(net, &["web1"])]
    })
    .unwrap();
    let net = &site.net;
    let machines = [&net.lb, net.client.netns(), net.switch()].into_iter();
    let machines = machines.chain(net.backends.iter().map(|backend| &backend.netns));
    let names: Vec<String> = machines.map(|netns| netns.name().to_owned()).collect();
    let process = format!("/proc/{}", site.lbd.pid());
    let directory = site.lbd.directory().to_path_buf();
    let is_there = |name: &String| netns::list(name).contains(name);
    assert!(names.iter().all(is_there) && Path::new(&process).exists());

    let panicked = catch_unwind(AssertUnwindSafe(move || {
        let _site = site;
        panic!("as planned");
    }));
    assert!(panicked.is_err());
    assert!(!names.iter().any(is_there), "{names:?}");
    assert!(!Path::new(&process).exists() && !directory.exists());
}
