//! Health checks on real servers: each way to die is found out within the check's budget, nobody is sent
//! to the dead, and who answers again is back.

use std::io::Write as _;
use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use lb_lab::lbd::is_in_force;
use lb_lab::scratch::ScratchDir;
use lb_lab::serde_json::{self, Value};
use lb_lab::service;
use lb_lab::site::web_servers;
use lb_lab::topology::{VIP_V4, VIP_V6};
use lb_lab::wait::wait_until;
use lb_lab::{
    Forward, Interfaces, Lbd, Plan, ServiceText, Site, Topology, firewall, http, require,
};
use nix::sys::signal::Signal;

/// How long a change of health may take on a busy machine. What it took is printed.
const TIMEOUT: Duration = Duration::from_secs(30);

const HTTP: &str = "type = \"http\"\npath = \"/\"\ninterval = \"300ms\"\nfast_interval = \"100ms\"\n\
                    timeout = \"300ms\"\nrise = 2\nfall = 3";

/// Where metrics are asked for, in the balancer's namespace.
const METRICS: &str = "[metrics]\nlisten = \"127.0.0.1:9180\"\nhaproxy_names = true\n";

fn site(check: &str) -> Site {
    let net = Topology::build(Plan::new(Forward::Dsr, Interfaces::One, 3)).unwrap();
    net.lb.ip("link set lo up").unwrap();
    let nginx = web_servers(&net).unwrap();
    let lbd = Lbd::start(&net.lb, &config(&net, check)).unwrap();
    let site = Site { lbd, nginx, net };
    for service in ["web", "web-v6"] {
        for backend in ["web1", "web2", "web3"] {
            await_health(&site, service, backend, "up");
        }
    }
    site
}

fn config(net: &Topology, check: &str) -> String {
    let services = [("web", VIP_V4), ("web-v6", VIP_V6)].map(|(name, vip)| {
        let service = ServiceText::new(net, name, vip).check(check);
        service.backends(net, &["web1", "web2", "web3"])
    });
    METRICS.to_owned() + &service::config(net, &services)
}

fn record(site: &Site, service: &str, backend: &str) -> Value {
    let words = ["health", "show", backend, "--service", service];
    let report = site.lbd.ctl_json(&words).unwrap();
    report["backends"][0].clone()
}

/// Waits until a backend is `health`; returns how long that took, and the record.
fn await_health(site: &Site, service: &str, backend: &str, health: &str) -> (Duration, Value) {
    let began = Instant::now();
    let record = wait_until(
        &format!("{backend} of {service} to be {health}"),
        TIMEOUT,
        || {
            let record = record(site, service, backend);
            let is_so = record["health"] == health && is_in_force(&record);
            Ok(is_so.then_some(record))
        },
    );
    let record = record.unwrap_or_else(|error| panic!("{error:#}\n{}", site.lbd.log_tail()));
    (began.elapsed(), record)
}

/// Requests over both VIPs: all of them are answered, by these backends and no other.
fn is_served_by(site: &Site, backends: &[&str]) {
    for (service, vip) in [("web", VIP_V4), ("web-v6", VIP_V6)] {
        site.lbd.await_ring(service).unwrap();
        let counts = site.net.client.http_get_many(SocketAddr::new(vip, 80), 150);
        let counts = counts.unwrap_or_else(|error| panic!("{service}: {error:#}"));
        assert!(counts.keys().eq(backends), "{service}: {counts:?}");
    }
}

/// web1 goes away and comes back in some way; the reason says what is wrong with it.
fn goes_and_comes(site: &mut Site, leave: fn(&mut Site), kind: &str, come_back: fn(&mut Site)) {
    leave(site);
    for service in ["web", "web-v6"] {
        let (elapsed, record) = await_health(site, service, "web1", "down");
        println!("{kind}: {service} down after {elapsed:?}");
        assert_eq!(record["checks"][0]["failure"]["kind"], kind, "{record}");
        let last = record["history"]
            .as_array()
            .unwrap()
            .last()
            .unwrap()
            .clone();
        assert_eq!((&last["from"], &last["to"]), (&"up".into(), &"down".into()));
    }
    is_served_by(site, &["web2", "web3"]);
    come_back(site);
    for service in ["web", "web-v6"] {
        await_health(site, service, "web1", "up");
    }
    is_served_by(site, &["web1", "web2", "web3"]);
}

/// The cable of web1: with the switch's end down, its own end keeps its addresses.
fn link(site: &Site, state: &str) {
    let switch = site.net.switch();
    switch.ip(&format!("link set web1 {state}")).unwrap();
}

#[test]
fn a_web_server_that_stops_hangs_or_is_cut_off_gets_no_request() {
    if require(&["ip", "nginx"]).is_missing() {
        return;
    }
    let mut site = site(HTTP);
    is_served_by(&site, &["web1", "web2", "web3"]);

    // It accepts connections, by its kernel, and never answers.
    let hang = |site: &mut Site| site.nginx[0].process().signal_all(Signal::SIGSTOP).unwrap();
    let go_on = |site: &mut Site| site.nginx[0].process().signal_all(Signal::SIGCONT).unwrap();
    goes_and_comes(&mut site, hang, "timeout", go_on);

    let stop = |site: &mut Site| {
        site.nginx[0].process().kill9_all().unwrap();
    };
    let start = |site: &mut Site| {
        let backend = &site.net.backends[0];
        site.nginx[0] = lb_lab::nginx::Nginx::start("web1", &backend.netns, &[80]).unwrap();
    };
    goes_and_comes(&mut site, stop, "refused", start);

    let events = site.lbd.ctl_ok(&["events"]).unwrap();
    for line in [
        "web/web1  up -> down: connection refused",
        "web-v6/web1  up -> down: connection refused",
        "web/web1  down -> up: answers",
    ] {
        assert!(events.contains(line), "{line} in\n{events}");
    }
    let set = ["health", "set", "web", "web1", "down"];
    let refused = site.lbd.ctl(&set).unwrap();
    assert_eq!(refused.code, 1, "{refused:?}");
    assert!(refused.stderr.contains("has checks"), "{refused:?}");

    goes_and_comes(
        &mut site,
        |site| link(site, "down"),
        "timeout",
        |site| link(site, "up"),
    );
}

/// What a check asks for and the server does not have.
#[test]
fn a_wrong_answer_is_no_answer() {
    if require(&["ip", "nginx"]).is_missing() {
        return;
    }
    let check = HTTP.replace(
        "path = \"/\"",
        "path = \"/\"\nbody = \"web\"\nstatus = \"200-299\"",
    );
    let mut site = site(&check);
    let elsewhere = HTTP.replace("path = \"/\"", "path = \"/\"\nstatus = \"300-399\"");
    let net = &site.net;
    let service = ServiceText::new(net, "web", VIP_V4).check(&elsewhere);
    let text = METRICS.to_owned() + &service::config(net, &[service.backends(net, &["web1"])]);
    site.lbd.reload(&text).unwrap();
    let (_, record) = await_health(&site, "web", "web1", "down");
    let failure = &record["checks"][0]["failure"];
    assert_eq!(failure["kind"], "unexpected", "{record}");
    assert!(
        failure["reason"].as_str().unwrap().contains("200"),
        "{record}"
    );
    site.lbd.terminate().unwrap();
}

/// Clients whose SYNs are not answered send them again after a second. Of a check that comes once in half a
/// minute that makes one that comes at once.
#[test]
fn repeated_syns_hurry_the_check() {
    if require(&["ip", "nginx", "nft"]).is_missing() {
        return;
    }
    let rare = HTTP.replace("300ms\"\nfast", "30s\"\nfast");
    assert_ne!(rare, HTTP);
    let net = Topology::build(Plan::new(Forward::Dsr, Interfaces::One, 3)).unwrap();
    let nginx = web_servers(&net).unwrap();
    let service = ServiceText::new(&net, "web", VIP_V4).check(&rare);
    let service = service.number("doubt_repeated_syns", 20);
    let service = service.backends(&net, &["web1", "web2", "web3"]);
    let config = METRICS.to_owned() + &service::config(&net, &[service]);
    let lbd = Lbd::start(&net.lb, &config).unwrap();
    let site = Site { lbd, nginx, net };
    for backend in ["web1", "web2", "web3"] {
        await_health(&site, "web", backend, "up");
    }
    firewall::close(&site.net.backends[0].netns, "tcp dport 80 drop").unwrap();
    let began = Instant::now();
    let vip = SocketAddr::new(VIP_V4, 80);
    let is_down = AtomicBool::new(false);
    std::thread::scope(|scope| {
        // A third of them wait for web1, and repeat their SYNs meanwhile.
        for _ in 0..60 {
            scope.spawn(|| {
                while !is_down.load(Ordering::Relaxed) && began.elapsed() < TIMEOUT {
                    let _lost = site.net.client.http_get(vip);
                }
            });
        }
        let (_, record) = await_health(&site, "web", "web1", "down");
        is_down.store(true, Ordering::Relaxed);
        println!("in doubt and down after {:?}", began.elapsed());
        assert!(
            began.elapsed() < Duration::from_secs(27),
            "the check came by itself"
        );
        assert_eq!(
            record["checks"][0]["failure"]["kind"], "timeout",
            "{record}"
        );
    });
    let events = site.lbd.ctl_ok(&["events"]).unwrap();
    assert!(events.contains("web/web1  asked at once: "), "{events}");
    assert!(!events.contains("web/web2  asked at once"), "{events}");
    let text = String::from_utf8(ask_metrics(&site, "/metrics").body).unwrap();
    let family = "lbd_backend_repeated_syns_total{service=\"web\",backend=\"web1\"}";
    let repeated = value_of(&text, family).unwrap_or_default();
    assert!(repeated > 0.0, "{text}");
}

fn ask_metrics(site: &Site, path: &str) -> http::Response {
    let address: SocketAddr = "127.0.0.1:9180".parse().unwrap();
    let answer = site.net.lb.run(|| http::get(&address.into(), path));
    answer.unwrap().unwrap()
}

#[test]
fn prometheus_is_answered_in_its_language() {
    if require(&["ip", "nginx", "promtool"]).is_missing() {
        return;
    }
    let site = site(HTTP);
    is_served_by(&site, &["web1", "web2", "web3"]);
    let text = String::from_utf8(ask_metrics(&site, "/metrics").body).unwrap();
    for line in [
        "lbd_backend_up{service=\"web\",backend=\"web1\"} 1",
        "lbd_check_up{service=\"web-v6\",backend=\"web3\",check=\"http GET /\"} 1",
        "haproxy_server_status{proxy=\"web\",server=\"web1\",state=\"UP\"} 1",
        "lbd_service_eligible_backends{service=\"web\"} 3",
        "lbd_service_ring_phase_slots{service=\"web\",phase=\"settled\"} 16381",
        "lbd_service_ring_phase_slots{service=\"web-v6\",phase=\"moving\"} 0",
        "lbd_service_flows{service=\"web\",state=\"established\"} 0",
        "lbd_map_entries{map=\"SERVICES\"} 2",
        "lbd_config_last_reload_successful 1",
        "lbd_config_reloads_total{result=\"success\"} 0",
        "lbd_hook_runs_total{result=\"success\"} 0",
    ] {
        assert!(text.contains(line), "{line} in\n{text}");
    }
    let new_flows = text.lines().filter_map(|line| {
        let value = line.strip_prefix("lbd_backend_new_flows_total{service=\"web\"")?;
        value.rsplit_once(' ')?.1.parse::<f64>().ok()
    });
    assert!(new_flows.sum::<f64>() >= 150.0, "{text}");
    for family in [
        "lbd_rings_written_total",
        "lbd_config_last_reload_success_timestamp_seconds",
    ] {
        let value = value_of(&text, family).unwrap_or_else(|| panic!("{family} in\n{text}"));
        assert!(value > 0.0, "{family} {value}");
    }
    let complaints = promtool(&text);
    assert_eq!(complaints, "", "promtool check metrics");

    for path in ["/livez", "/readyz"] {
        assert_eq!(ask_metrics(&site, path).status, 200, "{path}");
    }
}

/// The value of a metric without labels.
fn value_of(text: &str, family: &str) -> Option<f64> {
    let mut lines = text.lines();
    lines.find_map(|line| line.strip_prefix(family)?.trim().parse().ok())
}

/// A reload gives lbd a hook, web1 dies, and the hook is told; another reload takes it away again.
#[test]
fn a_hook_is_told_of_a_death() {
    if require(&["ip", "nginx"]).is_missing() {
        return;
    }
    let mut site = site(HTTP);
    let directory = ScratchDir::new("hook").unwrap();
    let told = directory.path().join("told");
    let plain = config(&site.net, HTTP);
    let script = "cat >> \"$0\"; echo heard of $LB_SERVICE/$LB_BACKEND; [ $LB_SERVICE = web ]";
    let path = told.display();
    let hook = format!(
        "[hooks]\non_change = [\"/bin/sh\", \"-c\", '{script}', \"{path}\"]\ntimeout = \"5s\"\n"
    );
    let count = |site: &Site, family: &str, result: &str| {
        let text = String::from_utf8(ask_metrics(site, "/metrics").body).unwrap();
        value_of(&text, &format!("{family}{{result=\"{result}\"}}")).unwrap()
    };
    let runs = |site: &Site, result: &str| count(site, "lbd_hook_runs_total", result);
    let reload = |site: &Site, config: &str| {
        let reloads = || count(site, "lbd_config_reloads_total", "success");
        let before = reloads();
        site.lbd.reload(config).unwrap();
        let done = wait_until("the file to be in force", TIMEOUT, || {
            Ok((reloads() > before).then_some(()))
        });
        done.unwrap_or_else(|error| panic!("{error:#}\n{}", site.lbd.log_tail()));
    };
    reload(&site, &(hook + &plain));
    assert_eq!(runs(&site, "success"), 0.0, "nothing has changed");

    site.nginx[0].process().kill9_all().unwrap();
    let lines = wait_until("the hook to be told of both services", TIMEOUT, || {
        let text = std::fs::read_to_string(&told).unwrap_or_default();
        let is_whole = text.ends_with('\n') && text.lines().count() == 2;
        Ok(is_whole.then_some(text))
    });
    let lines = lines.unwrap_or_else(|error| panic!("{error:#}\n{}", site.lbd.log_tail()));
    let mut services = Vec::new();
    for line in lines.lines() {
        let event: Value = serde_json::from_str(line).unwrap();
        assert_eq!(
            (
                &event["kind"],
                &event["backend"],
                &event["from"],
                &event["to"]
            ),
            (
                &"health".into(),
                &"web1".into(),
                &"up".into(),
                &"down".into()
            )
        );
        services.push(event["service"].as_str().unwrap().to_owned());
    }
    services.sort();
    assert_eq!(services, ["web", "web-v6"]);
    let counted = wait_until("both runs to be counted", TIMEOUT, || {
        let both = (runs(&site, "success"), runs(&site, "failure"));
        Ok((both == (1.0, 1.0)).then_some(()))
    });
    counted.unwrap();
    let log = site.lbd.log_tail();
    for words in ["on_change: heard of web/web1", "on_change: exit code 1"] {
        assert!(log.contains(words), "{words} in\n{log}");
    }

    reload(&site, &plain);
    let backend = &site.net.backends[0];
    site.nginx[0] = lb_lab::nginx::Nginx::start("web1", &backend.netns, &[80]).unwrap();
    await_health(&site, "web", "web1", "up");
    assert_eq!(runs(&site, "success"), 1.0, "there is no hook any more");
    site.lbd.terminate().unwrap();
}

/// What `promtool check metrics` has to say.
fn promtool(text: &str) -> String {
    let mut promtool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    promtool
        .stdin
        .take()
        .unwrap()
        .write_all(text.as_bytes())
        .unwrap();
    let output = promtool.wait_with_output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said).into_owned();
    assert!(
        output.status.success() || !said.is_empty(),
        "{}",
        output.status
    );
    said
}
