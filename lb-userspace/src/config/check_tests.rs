//! Health checks in the file: every key, and mistakes with their places. The rules themselves are tested
//! with the model.

use std::fmt::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::sync::{Arc, LazyLock};

use super::Look;
use super::tests::{FULL, WEB, mistake, mistakes, model, report};
use crate::model::check::{
    AgentCheck, Check, CheckKind, CheckMode, CheckType, DnsCheck, DnsType, ExchangeCheck,
    ExecCheck, GrpcCheck, HttpCheck, HttpVersion, MysqlCheck, PostgresCheck, RedisCheck,
    Replication, Role, Secret, StatusRange, Timing, TlsCheck, Trust, Via,
};
use crate::model::{Service, files};

const BACKEND: &str = "[[service.backend]]\naddress = \"10.0.0.11\"\n";

/// The five lines of `web`, a check with these lines from line 6 on, and a backend.
fn with_check(lines: &str) -> String {
    format!("{WEB}[[service.check]]\n{lines}\n{BACKEND}")
}

fn check(lines: &str) -> Check {
    let mut web = web(&with_check(lines));
    assert_eq!(web.checks.len(), 1);
    web.checks.remove(0)
}

fn web(text: &str) -> Service {
    model(text).services.remove("web").unwrap()
}

fn plain(kind: CheckKind) -> Check {
    Check {
        kind,
        timing: Timing::DEFAULT,
        port: None,
        source: None,
        via: Via::Direct,
    }
}

fn range(first: u16, last: u16) -> StatusRange {
    StatusRange { first, last }
}

#[test]
fn every_key_of_a_check_reaches_the_model() {
    let model = model(FULL);
    let web = &model.services["web"];
    assert_eq!((web.check_mode, web.hold_down_s), (CheckMode::Any, 120));
    let https = Check {
        kind: CheckKind::Http(HttpCheck {
            tls: Some(TlsCheck {
                server_name: Some("backend.example.com".to_owned()),
                trust: Trust::Anybody,
                min_valid_days: 30,
            }),
            version: HttpVersion::Http2,
            method: "HEAD".to_owned(),
            path: "/health".to_owned(),
            host: Some("www.example.com".to_owned()),
            headers: vec![("accept".to_owned(), "text/plain".to_owned())],
            status: vec![range(200, 200), range(300, 399)],
            body: String::new(),
        }),
        timing: Timing {
            interval_ms: 5_000,
            fast_interval_ms: 250,
            timeout_ms: 3_000,
            rise: 3,
            fall: 4,
        },
        port: Some(8443),
        source: Some("10.0.0.1".parse().unwrap()),
        via: Via::Direct,
    };
    let exec = plain(CheckKind::Exec(ExecCheck {
        program: "/bin/true".into(),
        args: vec!["--all".to_owned()],
    }));
    assert_eq!(web.checks, [https, exec]);
    let grpc = plain(CheckKind::Grpc(GrpcCheck {
        tls: Some(TlsCheck {
            server_name: None,
            trust: Trust::Anybody,
            min_valid_days: 14,
        }),
        service: "shop.Orders".to_owned(),
    }));
    assert_eq!(web.checks_of(&web.backends["web1"]), [grpc]);
    assert_eq!(web.checks_of(&web.backends["web2"]), []);
}

#[test]
fn every_key_of_datagrams_databases_and_agents_reaches_the_model() {
    let model = model(FULL);
    let dns = plain(CheckKind::Dns(DnsCheck {
        name: "www.example.com".to_owned(),
        query_type: DnsType::Aaaa,
        expect: Some("2001:db8::80".parse().unwrap()),
        is_tcp: false,
    }));
    let udp = plain(CheckKind::Udp(ExchangeCheck {
        send: "\0ping".to_owned(),
        expect: "pong".to_owned(),
    }));
    assert_eq!(model.services["dns"].checks, [dns, udp]);
    let db = &model.services["db"];
    assert_eq!((db.role, db.max_lag_s), (Role::Reader, Some(10)));
    assert!(db.primary_as_last_resort);
    let mysql = Check {
        via: Via::Datapath,
        ..plain(CheckKind::Mysql(MysqlCheck {
            user: "check".to_owned(),
            password: Some(Secret::Env("PATH".to_owned())),
            query: "SELECT 1".to_owned(),
            replication: Replication {
                writable: None,
                must_run: true,
                max_lag_s: Some(60),
                gtid: "0-1-100".to_owned(),
                observe: true,
            },
        }))
    };
    let agent = Check {
        port: Some(8081),
        ..plain(CheckKind::Agent(AgentCheck {
            send: "state".to_owned(),
        }))
    };
    assert_eq!(db.checks, [mysql, agent]);
}

#[test]
fn the_other_types_have_their_keys_too() {
    let tcp = check("type = \"tcp\"\nexpect = \"220 \"");
    let expected = ExchangeCheck {
        send: String::new(),
        expect: "220 ".to_owned(),
    };
    assert_eq!(tcp, plain(CheckKind::Tcp(expected)));
    assert_eq!(check("type = \"icmp\""), plain(CheckKind::Icmp));
    let fastcgi = check("type = \"fastcgi\"\npath = \"/fpm-ping\"\nstatus = 200\nbody = \"pong\"");
    let CheckKind::Fastcgi(fastcgi) = fastcgi.kind else {
        panic!("it is FastCGI");
    };
    assert_eq!((&*fastcgi.path, &*fastcgi.body), ("/fpm-ping", "pong"));
    assert_eq!(fastcgi.status, [range(200, 200)]);
    let postgres =
        check("type = \"postgres\"\nuser = \"check\"\ndatabase = \"shop\"\nwritable = true");
    let writable = Replication {
        writable: Some(true),
        ..Replication::default()
    };
    let expected = PostgresCheck {
        user: "check".to_owned(),
        password: None,
        database: "shop".to_owned(),
        query: String::new(),
        replication: writable.clone(),
    };
    assert_eq!(postgres, plain(CheckKind::Postgres(expected)));
    let redis = check("type = \"redis\"\npassword_env = \"PATH\"\nwritable = true");
    let expected = RedisCheck {
        user: String::new(),
        password: Some(Secret::Env("PATH".to_owned())),
        replication: writable,
    };
    assert_eq!(redis, plain(CheckKind::Redis(expected)));
}

#[test]
fn what_a_check_names_is_read_when_the_file_is() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
    let own = rcgen::generate_simple_self_signed(["ca.example".to_owned()]).unwrap();
    let pem = own.cert.pem();
    std::fs::write(path("ca.pem"), &pem).unwrap();
    std::fs::write(path("pw"), "secret\n").unwrap();
    let https = check(&format!(
        "type = \"https\"\nca_file = \"{}\"",
        path("ca.pem")
    ));
    let CheckKind::Http(HttpCheck { tls: Some(tls), .. }) = https.kind else {
        panic!("https has TLS");
    };
    let trust = Trust::Authorities {
        file: path("ca.pem").into(),
        pem: Arc::from(pem.as_bytes()),
    };
    assert_eq!(tls.trust, trust);
    let mysql = check(&format!(
        "type = \"mysql\"\nuser = \"check\"\npassword_file = \"{}\"",
        path("pw")
    ));
    let CheckKind::Mysql(mysql) = mysql.kind else {
        panic!("it is MySQL");
    };
    assert_eq!(mysql.password, Some(Secret::File(path("pw").into())));
    let missing = with_check(&format!(
        "type = \"https\"\nca_file = \"{}\"",
        path("none.pem")
    ));
    assert_eq!(
        mistake(&missing),
        format!(
            "7:11: error: cannot read ca_file {}: No such file or directory (os error 2) (lbd must be \
             able to read it)",
            path("none.pem")
        )
    );
}

#[test]
fn verification_without_a_file_trusts_whom_the_system_trusts() {
    let text = with_check("type = \"https\"\nverify = true");
    let loaded = super::parse("lbd.toml", &text, &super::tests::overrides());
    match files::system_authorities() {
        Ok(trust) => {
            let web = loaded.unwrap().model.services.remove("web").unwrap();
            let CheckKind::Http(HttpCheck { tls: Some(tls), .. }) = &web.checks[0].kind else {
                panic!("https has TLS");
            };
            assert_eq!(tls.trust, trust);
        }
        Err(error) => {
            let line = loaded.unwrap_err().lines().next().unwrap();
            assert!(
                line.starts_with("lbd.toml:7:10") && line.contains(&error.message),
                "{line}"
            );
        }
    }
}

#[test]
fn mistakes_are_found_at_their_place() {
    let cases = [
        (
            "type = \"htp\"",
            "6:8: error: unknown type `htp` (did you mean `http`? It is one of `tcp`, `http`, `https`, \
             `mysql`, `postgres`, `redis`, `fastcgi`, `grpc`, `udp`, `dns`, `icmp`, `exec`, `agent`)",
        ),
        (
            "type = \"icmp\"\nintervall = \"2s\"",
            "7:1: error: unknown key `intervall` (did you mean `interval`?)",
        ),
        (
            "type = \"icmp\"\ncolour = 1",
            "7:1: error: unknown key `colour` (the keys here are `type`, `interval`, `fast_interval`, \
             `timeout`, `rise`, `fall`, `source`, `via`)",
        ),
        (
            "type = \"tcp\"\nmethod = \"GET\"",
            "7:10: error: service `web`, check 1 (tcp): `method` is a key of checks of type http, https, \
             and this one is of type tcp",
        ),
        (
            "type = \"tcp\"\ninterval = \"2\"",
            "7:12: error: `2` is not a time span (write a whole number and its unit: `500ms`, `2s` or \
             `1m`)",
        ),
        (
            "type = \"tcp\"\ninterval = \"1ms\"",
            "7:12: error: service `web`, check 1 (tcp): interval 1 is not in 10 to 3600000 milliseconds",
        ),
        (
            "type = \"http\"\nstatus = \"2xx\"",
            "7:10: error: `2xx` is neither a status code nor a range of them (write codes from 100 to \
             599, such as `200`, `200-399` or `200, 301-308`)",
        ),
        (
            "type = \"http\"\nstatus = [200, true]",
            "7:10: error: `status` is a list, not status codes (write it like `status = \"200-399\"`)",
        ),
        (
            "type = \"http\"\nheaders = { Accept = 1 }",
            "7:11: error: `headers` is a table, not a table of texts (write it like `headers = { Accept \
             = \"text/html\" }`)",
        ),
        (
            "type = \"exec\"\ncommand = [\"check\"]",
            "7:11: error: command \"check\" is no absolute path (begin it with a slash: lbd may be \
             started in any directory)",
        ),
        (
            "type = \"exec\"\ncommand = []",
            "7:11: error: `command` is a list, not a list of texts (write it like `command = \
             [\"/usr/local/bin/check\", \"--fast\"]`)",
        ),
        (
            "interval = \"2s\"",
            "5:1: error: service `web`, check 1: `type` is missing",
        ),
    ];
    for (lines, expected) in cases {
        assert_eq!(mistake(&with_check(lines)), expected);
    }
}

#[test]
fn mistakes_of_a_backends_check_are_found_at_theirs() {
    let own = "checks = \"none\"\n[[service.backend.check]]\ntype = \"http\"\npath = \"x\"\n";
    assert_eq!(
        mistakes(&format!("{WEB}{BACKEND}{own}")),
        [
            "7:10: error: service `web`, backend `10.0.0.11`: checks = \"none\" beside checks of its own \
             (leave one of them out)",
            "10:8: error: service `web`, backend `10.0.0.11`, check 1 (http): path \"x\" does not begin \
             with a slash",
        ]
    );
    assert_eq!(
        mistake(&format!("{WEB}{BACKEND}check = []\n")),
        "7:9: error: service `web`, backend `10.0.0.11`: an empty list of checks (write checks = \
         \"none\" to have none)"
    );
    assert_eq!(
        mistake(&format!("{WEB}check = \"tcp\"\n{BACKEND}")),
        "5:9: error: `check` is a string, not a list of tables (write `[[service.check]]`, with two \
         brackets, for each one)"
    );
}

#[test]
fn what_passes_by_counts_from_a_share_on() {
    let check = "[[service.check]]\ntype = \"tcp\"\n";
    let keys = "doubt_repeated_syns = 20\ndoubt_resets = 100\n";
    let service = web(&format!("{WEB}{keys}{check}{BACKEND}"));
    let doubt = (
        service.doubt.repeated_syns_percent,
        service.doubt.resets_percent,
    );
    assert_eq!(doubt, (Some(20), Some(100)));
    assert_eq!(
        mistake(&format!("{WEB}doubt_resets = 20\n{BACKEND}")),
        "5:16: error: service `web`: `doubt_resets` makes a check come sooner, and the service has none \
         (add a [[service.check]])"
    );
    assert_eq!(
        mistake(&format!("{WEB}doubt_resets = 0\n{check}{BACKEND}")),
        "5:16: error: service `web`: doubt_resets 0 is not in 1 to 100 per cent"
    );
    let udp = WEB.replace("port = 80", "port = 80\nprotocol = \"udp\"");
    let check = "[[service.check]]\ntype = \"icmp\"\n";
    assert_eq!(
        mistake(&format!("{udp}doubt_repeated_syns = 20\n{check}{BACKEND}")),
        "6:23: error: service `web`: `doubt_repeated_syns` is for TCP: UDP has no SYN and no RST (leave it \
         out)"
    );
}

#[test]
fn a_check_that_cannot_work_for_the_service_is_found() {
    let udp = WEB.replace("port = 80", "port = 80\nprotocol = \"udp\"");
    let text = format!("{udp}[[service.check]]\ntype = \"mysql\"\nuser = \"check\"\n{BACKEND}");
    assert_eq!(
        mistake(&text),
        "7:8: error: service `web`, check 1 (mysql): a check of type mysql asks over TCP, and the \
         service is UDP (use a check of type udp, dns, icmp or exec)"
    );
    let text = with_check("type = \"mysql\"\nuser = \"check\"").replace(
        "[[service.check]]",
        "role = \"writer\"\non_all_down = \"last_good\"\n[[service.check]]",
    );
    assert!(mistake(&text).starts_with("6:15: error: service `web`: on_all_down \"last_good\""));
}

#[test]
fn a_password_in_the_file_is_refused_and_never_shown() {
    let cases = [
        "type = \"mysql\"\nuser = \"check\"\npassword = \"hunter2\"",
        // Beside another mistake, whose drawing shows the lines around it.
        "type = \"mysql\"\npassword = 'hunter2'\nuser = 7",
        "type = \"redis\"\npassword = \"\"\"hunter2\nhunter2\"\"\"",
        // With a slip of syntax in it.
        "type = \"mysql\"\npassword = \"hunter2",
    ];
    for lines in cases {
        let report = report(&with_check(lines));
        let mut shown = report.render(Look::Plain);
        for line in report.lines() {
            writeln!(shown, "{line}").unwrap();
        }
        assert!(!shown.contains("hunter2"), "{shown}");
        assert!(report.error_count() > 0);
    }
    let told = mistake(&with_check(cases[0]));
    assert!(
        told.starts_with(
            "8:1: error: a password does not belong into the config file (write it into a file"
        ),
        "{told}"
    );
}

#[test]
fn every_mistake_in_many_checks_is_told_at_once() {
    let text = format!(
        "{WEB}role = \"writer\"\n\
         [[service.check]]\ntype = \"tcp\"\nrise = 0\nsource = \"127.0.0.1\"\n\
         [[service.check]]\ntype = \"http\"\nport = 0\npath = \"x\"\nexpect = \"y\"\n{BACKEND}"
    );
    let places: Vec<String> = mistakes(&text)
        .iter()
        .map(|line| line.split(": ").next().unwrap().to_owned())
        .collect();
    assert_eq!(places, ["5:8", "8:8", "9:10", "12:8", "13:8", "14:10"]);
}

/// A secret of a cluster, and the line that names it.
static SECRET: LazyLock<(tempfile::TempDir, String)> = LazyLock::new(|| {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("cluster.key");
    std::fs::write(&path, "q9Kx0Zr1tV8mN2pL5sWd7fYhJcBgUeAo+/34").unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    let line = format!("secret_file = \"{}\"", path.display());
    (directory, line)
});

/// Text of the reference, with what need not exist on this machine replaced by what does.
fn here(text: &str) -> String {
    let lines = text.lines().map(|line| match line.split_once(" = ") {
        Some(("password_file" | "password_env", _)) => "password_env = \"PATH\"",
        Some(("ca_file", _)) => "verify = false",
        Some(("secret_file", _)) => &SECRET.1,
        Some(("command", _)) => "command = [\"/bin/true\"]",
        Some(("on_change", _)) => "on_change = \"/bin/true\"",
        _ => line,
    });
    lines.collect::<Vec<_>>().join("\n")
}

#[test]
fn the_examples_of_the_reference_are_good() {
    let readme = include_str!("../../../README.md");
    let blocks = readme.split("```toml\n").skip(1);
    let examples: Vec<String> = blocks
        .map(|block| here(block.split("```").next().unwrap()))
        .collect();
    assert!(examples.len() >= 3, "{examples:#?}");
    for example in examples {
        let model = model(&example);
        let has_content = !model.services.is_empty() || model.hooks.on_change.is_some();
        assert!(has_content, "{example}");
    }
}

#[test]
fn the_reference_has_an_example_of_each_type() {
    let readme = include_str!("../../../README.md");
    let examples: Vec<Check> = readme
        .lines()
        .filter_map(|line| Some(line[line.find("| `type = ")? + 3..].replace("`, `", "\n")))
        .map(|example| {
            let lines = here(example.trim_end_matches("` |"));
            let text = match lines.starts_with("type = \"udp\"") {
                true => {
                    with_check(&lines).replace("port = 80\n", "port = 80\nprotocol = \"udp\"\n")
                }
                false => with_check(&lines),
            };
            web(&text).checks.remove(0)
        })
        .collect();
    let mut types: Vec<CheckType> = examples.iter().map(|one| one.kind.check_type()).collect();
    types.push(CheckType::Http);
    types.sort();
    assert_eq!(types, CheckType::ALL);
}
