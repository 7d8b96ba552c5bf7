use std::time::Duration;

use super::*;
use crate::config::{Overrides, parse};
use crate::health::outcome::Failure;
use crate::health::outcome::FailureKind;

const DATABASE: &str = "[[service.check]]\ntype = \"mysql\"\nuser = \"check\"\n";

fn model(keys: &str, checks: &str, addresses: [&str; 2]) -> Model {
    let [one, other] = addresses;
    let text = format!(
        "[[service]]\nname = \"web\"\nvip = \"203.0.113.10\"\nport = 80\n{keys}{checks}\
         [[service.backend]]\nname = \"one\"\naddress = \"{one}\"\n\
         [[service.backend]]\nname = \"other\"\naddress = \"{other}\"\n"
    );
    let overrides = Overrides {
        interfaces: vec!["eth0".to_owned()],
        node: "lb1".to_owned(),
    };
    parse("lbd.toml", &text, &overrides).unwrap().model
}

const ADDRESSES: [&str; 2] = ["10.0.0.11", "10.0.0.12"];

/// What the engine does with a board's words, and a reload with what is known.
fn reload(board: &mut Board, current: &Model, new: Model) -> (Model, RosterChange) {
    let model = new.keeping_state_of(current);
    let change = board.follow(&model, Moment::default());
    (model, change)
}

fn told(board: &mut Board, model: &mut Model) {
    let observations = board.take_observations();
    model.observe(&observations);
}

/// All questions about a backend are answered.
fn answer(board: &mut Board, address: &str, result: Result<(), Failure>, writable: Option<bool>) {
    let questions: Vec<Arc<Question>> = board.roster().questions.keys().cloned().collect();
    let ip: std::net::IpAddr = address.parse().unwrap();
    for question in questions.iter().filter(|one| one.target.address.ip() == ip) {
        let outcome = Outcome {
            result: result.clone(),
            observed: Observed {
                writable,
                replication_running: writable.map(|is_writable| !is_writable),
                ..Observed::default()
            },
            duration: Duration::ZERO,
        };
        board.note(question, outcome, Moment::default());
    }
}

fn fit(model: &Model) -> Vec<&str> {
    let backends = model.services["web"].backends.values();
    let fit = backends.filter(|one| one.fit == Fit::Fit);
    fit.map(|one| one.name.as_str()).collect()
}

#[test]
fn another_role_is_judged_by_the_answers_that_are_there() {
    let mut board = Board::default();
    let mut current = model("role = \"reader\"\n", DATABASE, ADDRESSES);
    board.follow(&current, Moment::default());
    answer(&mut board, ADDRESSES[0], Ok(()), Some(true));
    answer(&mut board, ADDRESSES[1], Ok(()), Some(false));
    told(&mut board, &mut current);
    assert_eq!(fit(&current), ["other"], "the replica");

    let writer = model("role = \"writer\"\n", DATABASE, ADDRESSES);
    let (mut writer, change) = reload(&mut board, &current, writer);
    assert!(!change.transitions.is_empty());
    told(&mut board, &mut writer);
    assert_eq!(fit(&writer), ["one"], "the primary");

    let plain = model("", DATABASE, ADDRESSES);
    let (mut plain, _) = reload(&mut board, &writer, plain);
    told(&mut board, &mut plain);
    assert_eq!(fit(&plain), ["one", "other"]);
}

#[test]
fn nobody_is_fit_for_a_role_before_a_new_check_has_found_who() {
    let mut board = Board::default();
    let mut current = model("role = \"reader\"\n", DATABASE, ADDRESSES);
    board.follow(&current, Moment::default());
    answer(&mut board, ADDRESSES[0], Ok(()), Some(true));
    answer(&mut board, ADDRESSES[1], Ok(()), Some(false));
    told(&mut board, &mut current);
    let other_check = DATABASE.replace("check\"\n", "checker\"\n");
    let writer = model("role = \"writer\"\n", &other_check, ADDRESSES);
    let (mut writer, _) = reload(&mut board, &current, writer);
    told(&mut board, &mut writer);
    assert_eq!(fit(&writer), Vec::<&str>::new());
}

#[test]
fn a_check_that_goes_takes_what_it_said_along_and_another_mode_counts_at_once() {
    let checks = "[[service.check]]\ntype = \"tcp\"\n[[service.check]]\ntype = \"icmp\"\n";
    let mut board = Board::default();
    let mut current = model("", checks, ADDRESSES);
    board.follow(&current, Moment::default());
    answer(&mut board, ADDRESSES[1], Ok(()), None);
    let silence = Failure::new(FailureKind::TimedOut, "no answer");
    let questions: Vec<Arc<Question>> = board.roster().questions.keys().cloned().collect();
    for question in &questions {
        let is_icmp = question.check.to_string().starts_with("icmp");
        if question.target.address.ip().to_string() == ADDRESSES[0] {
            let outcome = Outcome {
                result: if is_icmp {
                    Err(silence.clone())
                } else {
                    Ok(())
                },
                observed: Observed::default(),
                duration: Duration::ZERO,
            };
            board.note(question, outcome, Moment::default());
        }
    }
    told(&mut board, &mut current);
    let health = |model: &Model| model.services["web"].backends["one"].health;
    assert_eq!(health(&current), Health::Down);

    let any = model("check_mode = \"any\"\n", checks, ADDRESSES);
    let (mut any, _) = reload(&mut board, &current, any);
    told(&mut board, &mut any);
    assert_eq!(health(&any), Health::Up);

    let all = model("", checks, ADDRESSES);
    let (mut all, _) = reload(&mut board, &any, all);
    told(&mut board, &mut all);
    assert_eq!(health(&all), Health::Down);

    let tcp_only = model("", "[[service.check]]\ntype = \"tcp\"\n", ADDRESSES);
    let (mut tcp_only, _) = reload(&mut board, &all, tcp_only);
    told(&mut board, &mut tcp_only);
    assert_eq!(health(&tcp_only), Health::Up);
}

#[test]
fn another_machine_of_the_same_name_inherits_nothing() {
    let mut board = Board::default();
    let mut current = model("role = \"writer\"\n", DATABASE, ADDRESSES);
    board.follow(&current, Moment::default());
    answer(&mut board, ADDRESSES[0], Ok(()), Some(true));
    answer(&mut board, ADDRESSES[1], Ok(()), Some(false));
    // Under way to the engine while the machine behind the name becomes another one.
    let late = board.take_observations();
    current.observe(&late);
    assert_eq!(fit(&current), ["one"]);
    let swapped = model("role = \"writer\"\n", DATABASE, ["10.0.0.12", "10.0.0.13"]);
    let (mut swapped, _) = reload(&mut board, &current, swapped);
    swapped.observe(&late);
    told(&mut board, &mut swapped);
    assert_eq!(fit(&swapped), Vec::<&str>::new());
}

#[test]
fn checks_that_are_described_alike_are_told_apart() {
    let checks =
        "[[service.check]]\ntype = \"tcp\"\n[[service.check]]\ntype = \"tcp\"\nexpect = \"220\"\n";
    let mut board = Board::default();
    board.follow(&model("", checks, ADDRESSES), Moment::default());
    let plan = &board.roster().services["web"];
    let names = crate::health::roster::check_names(&plan.backends["one"]);
    assert_eq!(names, ["tcp", "tcp (2)"]);
}
