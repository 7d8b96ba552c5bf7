//! The application tier: gunicorn, Node, php-fpm by itself and behind nginx, gRPC.

use lb_lab::topology::VIP_V6;
use lb_lab::{ServiceText, grpc, gunicorn, node, php_fpm, require};

use crate::tier::{ALL, TIMING, Tier, network, on_all, service};
use crate::trouble::{Trouble, filter, hung, mode, of_tcp, on_the_way, stopped};

/// What every page is asked for.
const PAGE: &str = "type = \"http\"\nbody = \"ready\"\n";
/// What a check over HTTP does between its request and the status.
const WAITING: &str = "waiting for an answer";
const READING: &str = "reading the answer";

/// What our pages can do.
fn of_pages() -> Vec<Trouble> {
    vec![
        mode(
            "slow",
            ("timeout", "waiting for an answer: timed out after 300 ms"),
        ),
        mode("broken", ("unexpected", "HTTP 500 in place of 200-399")),
        mode(
            "starting",
            (
                "unexpected",
                "no \"ready\" in the body, which begins with \"starting\"",
            ),
        ),
    ]
}

#[test]
fn gunicorn_is_asked_over_http() {
    if require(&["ip", "nft", "gunicorn"]).is_missing() {
        return;
    }
    let net = network();
    let programs = on_all(&net, gunicorn::start);
    let services = [service(&net, "gunicorn", gunicorn::PORT, PAGE)];
    let mut tier = Tier::start(net, programs, "", &services);
    let mut troubles = of_tcp(gunicorn::PORT, WAITING, READING);
    troubles.extend(of_pages());
    tier.walk("gunicorn", troubles);
}

#[test]
fn node_is_asked_over_http() {
    if require(&["ip", "nft", "node"]).is_missing() {
        return;
    }
    let net = network();
    let programs = on_all(&net, node::start);
    let v6 = ServiceText::new(&net, "node-v6", VIP_V6)
        .port(node::PORT)
        .key("hold_down", "0s")
        .check(&format!("{TIMING}{PAGE}"))
        .backends(&net, &ALL);
    let services = [service(&net, "node", node::PORT, PAGE), v6];
    let mut tier = Tier::start(net, programs, "", &services);
    let mut troubles = of_tcp(node::PORT, WAITING, READING);
    troubles.extend(of_pages());
    troubles.extend([
        mode(
            "stuck",
            (
                "timeout",
                "reading the body, no \"ready\" yet: timed out after 300 ms",
            ),
        ),
        mode("resetting", ("closed", "connection reset by the server")),
        mode(
            "closing",
            ("closed", "closed by the server without an answer"),
        ),
        mode(
            "rambling",
            (
                "protocol",
                "the answer is no HTTP/1: it begins with \"READY\"",
            ),
        ),
        filter(
            "forbidden",
            format!(
                "tcp dport {} reject with icmpx admin-prohibited",
                node::PORT
            ),
            ("unreachable", "host unreachable"),
        )
        // Over IPv6, Linux takes this for a passing trouble until it sends its second SYN.
        .of(&["node"]),
    ]);
    tier.walk("node", troubles);
}

#[test]
fn php_fpm_is_asked_by_fastcgi() {
    if require(&["ip", "nft", "php-fpm"]).is_missing() {
        return;
    }
    let net = network();
    let programs = on_all(&net, php_fpm::start);
    let ping = "type = \"fastcgi\"\npath = \"/ping\"\nbody = \"pong\"\n";
    let services = [service(&net, "php", php_fpm::PORT, ping)];
    let mut tier = Tier::start(net, programs, "", &services);
    tier.walk("php-fpm's ping", of_tcp(php_fpm::PORT, WAITING, READING));
}

#[test]
fn a_script_of_php_fpm_is_asked_by_fastcgi() {
    if require(&["ip", "nft", "php-fpm"]).is_missing() {
        return;
    }
    let net = network();
    let programs = on_all(&net, php_fpm::start);
    // Each backend's script lies elsewhere: a check of its own for each.
    let text = ServiceText::new(&net, "php", lb_lab::topology::VIP_V4)
        .port(php_fpm::PORT)
        .key("hold_down", "0s")
        .backends(&net, &ALL);
    let text = ALL.iter().zip(&programs).fold(text, |text, (name, php)| {
        let path = php_fpm::script(php);
        let check = format!(
            "type = \"fastcgi\"\npath = \"{}\"\nbody = \"ready\"\n",
            path.display()
        );
        text.backend_check(name, &format!("{TIMING}{check}"))
    });
    let mut tier = Tier::start(net, programs, "", &[text]);
    tier.walk("a script of php-fpm", of_pages());
}

#[test]
fn php_fpm_is_asked_through_nginx() {
    if require(&["ip", "nft", "php-fpm", "nginx"]).is_missing() {
        return;
    }
    let net = network();
    let programs = on_all(&net, php_fpm::start);
    let backends = net.backends.iter().zip(&programs);
    let nginx = backends
        .map(|(backend, php)| php_fpm::start_nginx(&backend.name, &backend.netns, php).unwrap())
        .collect::<Vec<_>>();
    let check = format!("{PAGE}path = \"{}\"\n", php_fpm::PAGE);
    let services = [service(&net, "php", php_fpm::WEB_PORT, &check)];
    let mut tier = Tier::start(net, programs, "", &services);
    let late = ("timeout", "waiting for an answer: timed out after 300 ms");
    let mut troubles = vec![
        stopped(("unexpected", "HTTP 502 in place of 200-399")),
        hung(late),
        filter(
            "filtered from nginx",
            format!("tcp dport {} drop", php_fpm::PORT),
            late,
        ),
    ];
    troubles.extend(of_pages());
    troubles.extend(on_the_way(php_fpm::WEB_PORT, READING));
    tier.walk("php-fpm behind nginx", troubles);
    drop(tier);
    drop(nginx);
}

#[test]
fn a_grpc_server_is_asked_for_its_health() {
    if require(&["ip", "nft", grpc::PYTHON, grpc::LIBRARY]).is_missing() {
        return;
    }
    let net = network();
    let programs = on_all(&net, grpc::start);
    let check = format!("type = \"grpc\"\ngrpc_service = \"{}\"\n", grpc::SERVICE);
    let services = [service(&net, "grpc", grpc::PORT, &check)];
    let mut tier = Tier::start(net, programs, "", &services);
    let mut troubles = of_tcp(grpc::PORT, WAITING, "HTTP/2");
    troubles.extend([
        mode(
            "slow",
            ("timeout", "waiting for an answer: timed out after 300 ms"),
        ),
        mode(
            "not serving",
            (
                "unexpected",
                "service \"shop.Orders\" is NOT_SERVING in place of SERVING",
            ),
        ),
        mode(
            "forgetful",
            ("unexpected", "the server knows no service \"shop.Orders\""),
        ),
        mode(
            "bare",
            ("unexpected", "the server has no grpc.health.v1.Health"),
        ),
        mode(
            "overloaded",
            ("unexpected", "gRPC status 8: \"too many orders\""),
        ),
    ]);
    tier.walk("grpc", troubles);
}
