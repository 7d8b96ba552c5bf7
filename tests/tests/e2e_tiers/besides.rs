//! What is asked besides the program itself: its machine (icmp), another program (exec), its agent.

use lb_lab::scratch::ScratchDir;
use lb_lab::{node, require};

use crate::tier::{TIMING, TROUBLED, Tier, network, on_all, service};
use crate::trouble::{Trouble, filter};

/// Asks a file about the server; a real one would ask a ticket system, or an inventory.
const SCRIPT: &str = r#"
read -r word < "${0%/*}/$HAPROXY_SERVER_ADDR"
case "$word" in
    full) echo "disk full"; echo "more words" >&2; exit 1 ;;
    hanging) sleep 600 & sleep 600 ;;
    crashing) kill -SEGV $$ ;;
esac
"#;

/// What the agent says when all is well.
const AGENT_WELL: &str = "up ready 100%";

/// The script finds something else about the troubled machine.
fn script(word: &'static str, found: (&'static str, &str), about: &std::path::Path) -> Trouble {
    let write = |word: &'static str| {
        let about = about.to_path_buf();
        move |_: &mut Tier| std::fs::write(&about, word).unwrap()
    };
    Trouble::new(word, found, write(word), write("well"))
}

/// The agent says something else.
fn agent(words: &'static str, found: (&'static str, &str)) -> Trouble {
    let begin = move |tier: &mut Tier| says(tier, words);
    let end = |tier: &mut Tier| says(tier, AGENT_WELL);
    Trouble::new(words, found, begin, end)
}

fn says(tier: &mut Tier, words: &str) {
    tier.program().write(node::AGENT_FILE, words).unwrap();
}

#[test]
fn its_machine_another_program_and_its_agent_are_asked() {
    if require(&["ip", "nft", "node", "sh"]).is_missing() {
        return;
    }
    let net = network();
    let programs = on_all(&net, node::start);
    let scratch = ScratchDir::new("exec-check").unwrap();
    let command = scratch.write("check", SCRIPT).unwrap();
    for backend in &net.backends {
        scratch.write(&backend.v4.to_string(), "well").unwrap();
    }
    let about = scratch.path().join(net.backends[0].v4.to_string());
    let exec = format!(
        "type = \"exec\"\ncommand = [\"/bin/sh\", \"{}\"]\n",
        command.display()
    );
    let agent_check = format!("type = \"agent\"\nport = {}\n", node::AGENT_PORT);
    let services = [service(&net, "node", node::PORT, "type = \"icmp\"\n")
        .check(&format!("{TIMING}{exec}"))
        .check(&format!("{TIMING}{agent_check}"))];
    let mut tier = Tier::start(net, programs, "", &services);
    tier.walk(
        "besides",
        vec![
            filter(
                "its pings filtered",
                "icmp type echo-request drop".to_owned(),
                ("timeout", "no echo reply: timed out after 300 ms"),
            ),
            filter(
                "its pings forbidden",
                "icmp type echo-request reject with icmpx admin-prohibited".to_owned(),
                ("unreachable", "host unreachable"),
            ),
            script("full", ("unexpected", "exit code 1: \"disk full\""), &about),
            script(
                "hanging",
                ("timeout", "running: timed out after 300 ms"),
                &about,
            ),
            script("crashing", ("unexpected", "ended by signal 11"), &about),
            agent(
                "down #maintenance of the disk",
                ("unexpected", "the agent says \"maintenance of the disk\""),
            ),
        ],
    );
    an_agent_is_followed(&mut tier);
}

/// Drain and weight, beside what the operator said; words that are none change nothing.
fn an_agent_is_followed(tier: &mut Tier) {
    says(tier, "drain");
    tier.await_eligible("node", &["web2"]);
    let record = tier.record("node");
    assert_eq!(record["health"], "up");
    assert!(
        record["agent"].as_str().unwrap().starts_with("drain"),
        "{record}"
    );
    tier.print("its agent drains it");

    says(tier, "ready 50%");
    tier.await_that("half of its weight", || {
        tier.record("node")["agent"] == "ready 50 %"
    });
    tier.await_well();

    says(tier, "gone fishing");
    tier.await_that("a word that is none", || {
        let failure = &tier.record("node")["checks"][2]["failure"];
        failure["kind"] == "protocol"
    });
    tier.print("its agent says what it cannot mean");
    tier.await_eligible("node", &[TROUBLED, "web2"]);
    assert_eq!(tier.record("node")["agent"], "ready 50 %");
}
