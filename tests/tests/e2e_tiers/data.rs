//! The database tier: PostgreSQL and Redis. MariaDB has a file of its own.

use std::cell::RefCell;
use std::rc::Rc;

use lb_lab::process::Process;
use lb_lab::scratch::ScratchDir;
use lb_lab::{postgres, redis, require};

use crate::tier::{Tier, network, on_all, service};
use crate::trouble::{Trouble, of_tcp};

/// Statements of the superuser make and mend a trouble.
fn statements(
    name: &str,
    found: (&'static str, &str),
    begin: &'static str,
    end: &'static str,
) -> Trouble {
    let run = |statements| {
        move |tier: &mut Tier| {
            postgres::sql(tier.program(), statements).unwrap();
        }
    };
    Trouble::new(name, found, run(begin), run(end))
}

/// Somebody holds a lock on what the check asks.
fn locked() -> Trouble {
    let session: Rc<RefCell<Option<Process>>> = Rc::default();
    let held = Rc::clone(&session);
    let begin = move |tier: &mut Tier| {
        let statements = "BEGIN; LOCK TABLE health; SELECT pg_sleep(600)";
        let client = postgres::session(tier.program(), statements).unwrap();
        *session.borrow_mut() = Some(client);
    };
    let end = move |tier: &mut Tier| {
        let end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE '%LOCK TABLE%' \
                   AND pid <> pg_backend_pid()";
        postgres::sql(tier.program(), end).unwrap();
        drop(held.borrow_mut().take());
    };
    let found = (
        "timeout",
        "waiting for the query's answer: timed out after 300 ms",
    );
    Trouble::new("slow (a lock)", found, begin, end)
}

#[test]
fn postgresql_is_asked_as_a_client_would() {
    if require(&["ip", "nft", "postgres", "initdb", "psql", "setpriv"]).is_missing() {
        return;
    }
    let net = network();
    let programs = on_all(&net, postgres::start);
    let scratch = ScratchDir::new("check-password").unwrap();
    let password = scratch.write("password", postgres::CHECK_PASSWORD).unwrap();
    let check = format!(
        "type = \"postgres\"\nuser = \"{}\"\npassword_file = \"{}\"\nquery = \"{}\"\nwritable = true\n",
        postgres::CHECK_USER,
        password.display(),
        postgres::CHECK_QUERY
    );
    let services = [service(&net, "postgres", postgres::PORT, &check)];
    let mut tier = Tier::start(net, programs, "", &services);
    let mut troubles = of_tcp(postgres::PORT, "signing in", "signing in");
    troubles.extend([
        locked(),
        statements(
            "read-only",
            ("unexpected", "the server is read-only"),
            "ALTER DATABASE postgres SET default_transaction_read_only = on",
            "BEGIN READ WRITE; ALTER DATABASE postgres RESET ALL; COMMIT",
        ),
        statements(
            "without its table",
            (
                "unexpected",
                "the check's query: error 42P01: relation \"health\" does not exist",
            ),
            "ALTER TABLE health RENAME TO forgotten",
            "ALTER TABLE forgotten RENAME TO health",
        ),
        statements(
            "with another password",
            (
                "access",
                "password authentication failed for user \"lbcheck\"",
            ),
            "ALTER ROLE lbcheck PASSWORD 'another'",
            "ALTER ROLE lbcheck PASSWORD 'check-me'",
        ),
        statements(
            "full",
            ("access", "too many connections for role \"lbcheck\""),
            "ALTER ROLE lbcheck CONNECTION LIMIT 0",
            "ALTER ROLE lbcheck CONNECTION LIMIT -1",
        ),
    ]);
    tier.walk("postgres", troubles);
    says_nothing_of(&tier, postgres::CHECK_PASSWORD);
}

/// A command makes a trouble, and another one mends it. Passwords are those that the server has by then.
fn commands(
    name: &str,
    found: (&'static str, &str),
    begin: &'static [&'static str],
    (password, end): (&'static str, &'static [&'static str]),
) -> Trouble {
    let tell = |password, words| {
        move |tier: &mut Tier| {
            redis::tell(tier.machine(), password, words).unwrap();
        }
    };
    Trouble::new(
        name,
        found,
        tell(redis::PASSWORD, begin),
        tell(password, end),
    )
}

/// It answers nobody for a while. A server that pauses takes no command to go on either: it is restarted.
fn paused() -> Trouble {
    let begin = |tier: &mut Tier| {
        let words = ["CLIENT", "PAUSE", "600000", "ALL"];
        redis::tell(tier.machine(), redis::PASSWORD, &words).unwrap();
    };
    let end = |tier: &mut Tier| {
        tier.program().kill_all().unwrap();
        tier.start_again();
    };
    let late = "waiting for an answer: timed out after 300 ms";
    Trouble::new("slow (a pause)", ("timeout", late), begin, end)
}

#[test]
fn redis_is_asked_as_a_client_would() {
    if require(&["ip", "nft", "redis-server", "redis-cli"]).is_missing() {
        return;
    }
    let net = network();
    let programs = on_all(&net, redis::start);
    let primary = net.backends[1].v4.to_string();
    let scratch = ScratchDir::new("check-password").unwrap();
    let password = scratch.write("password", redis::PASSWORD).unwrap();
    let check = format!(
        "type = \"redis\"\npassword_file = \"{}\"\nwritable = true\n",
        password.display()
    );
    let services = [service(&net, "redis", redis::PORT, &check)];
    let mut tier = Tier::start(net, programs, "", &services);
    let mut troubles = of_tcp(redis::PORT, "waiting for an answer", "AUTH");
    let demote = move |tier: &mut Tier| {
        let words = ["REPLICAOF", &primary, "6379"];
        redis::tell(tier.machine(), redis::PASSWORD, &words).unwrap();
    };
    let promote = |tier: &mut Tier| {
        redis::tell(tier.machine(), redis::PASSWORD, &["REPLICAOF", "NO", "ONE"]).unwrap();
    };
    troubles.extend([
        paused(),
        Trouble::new(
            "a replica",
            ("unexpected", "the server is read-only"),
            demote,
            promote,
        ),
        commands(
            "with another password",
            ("access", "AUTH: WRONGPASS invalid username-password pair"),
            &["CONFIG", "SET", "requirepass", "another"],
            (
                "another",
                &["CONFIG", "SET", "requirepass", redis::PASSWORD],
            ),
        ),
    ]);
    tier.walk("redis", troubles);
    says_nothing_of(&tier, redis::PASSWORD);
}

/// The password of the checks is in nothing that lbd says.
fn says_nothing_of(tier: &Tier, password: &str) {
    let events = tier.lbd.ctl_ok(&["events"]).unwrap();
    let services = tier.lbd.ctl_ok(&["-o", "json", "service", "list"]).unwrap();
    let health = tier.lbd.ctl_ok(&["-o", "json", "health", "list"]).unwrap();
    for text in [events, services, health, tier.lbd.log()] {
        assert!(!text.contains(password), "{text}");
    }
}
