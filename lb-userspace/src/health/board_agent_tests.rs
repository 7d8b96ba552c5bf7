use std::time::Duration;

use super::*;
use crate::config::{Overrides, parse};
use crate::model::check::CheckKind;
use crate::model::{AdminState, AgentState};

const AGENT: &str = "[[service.check]]\ntype = \"agent\"\nport = 8081\n";

fn model(checks: &str) -> Model {
    let text = format!(
        "[[service]]\nname = \"web\"\nvip = \"203.0.113.10\"\nport = 80\n{checks}\
         [[service.backend]]\nname = \"web1\"\naddress = \"10.0.0.11\"\n"
    );
    let overrides = Overrides {
        interfaces: vec!["eth0".to_owned()],
        node: "lb1".to_owned(),
    };
    parse("lbd.toml", &text, &overrides).unwrap().model
}

/// A board that asks, and its questions to agents and to others.
fn board(model: &Model) -> (Board, Vec<Arc<Question>>, Vec<Arc<Question>>) {
    let mut board = Board::default();
    let asked = board.follow(model, Moment::default()).begun;
    let (agents, others) = asked
        .into_iter()
        .partition(|one| matches!(one.check.kind, CheckKind::Agent(_)));
    (board, agents, others)
}

fn outcome(agent: Option<AgentWords>) -> Outcome {
    Outcome {
        result: Ok(()),
        observed: Observed {
            agent,
            ..Observed::default()
        },
        duration: Duration::ZERO,
    }
}

fn says(board: &mut Board, question: &Question, admin: Option<AdminState>, percent: Option<u16>) {
    let words = AgentWords {
        is_up: None,
        admin,
        weight_percent: percent,
    };
    board.note(question, outcome(Some(words)), Moment::default());
}

fn state(board: &Board) -> AgentState {
    board.records().next().unwrap().1.finding.agent
}

const DRAINED_HALF: AgentState = AgentState {
    admin: Some(AdminState::Drain),
    weight_percent: Some(50),
};

#[test]
fn a_weight_takes_no_drain_back() {
    let (mut board, agents, _) = board(&model(AGENT));
    says(&mut board, &agents[0], Some(AdminState::Drain), None);
    says(&mut board, &agents[0], None, Some(50));
    assert_eq!(state(&board), DRAINED_HALF);
    says(&mut board, &agents[0], None, Some(50));
    assert_eq!(board.records().next().unwrap().1.history.len(), 2);
    says(&mut board, &agents[0], Some(AdminState::Ready), None);
    let ready_half = AgentState {
        admin: Some(AdminState::Ready),
        ..DRAINED_HALF
    };
    assert_eq!(state(&board), ready_half);
}

#[test]
fn what_an_agent_said_before_a_restart_holds_until_it_says_otherwise() {
    let tcp = "[[service.check]]\ntype = \"tcp\"\n";
    let mut known = model(&format!("{AGENT}{tcp}"));
    let backends = &mut known.services.get_mut("web").unwrap().backends;
    backends.get_mut("web1").unwrap().agent = DRAINED_HALF;

    let (mut board, agents, others) = board(&known);
    board.note(&others[0], outcome(None), Moment::default());
    assert_eq!(state(&board), DRAINED_HALF);
    says(&mut board, &agents[0], None, Some(75));
    let still_drained = AgentState {
        weight_percent: Some(75),
        ..DRAINED_HALF
    };
    assert_eq!(state(&board), still_drained);
}

#[test]
fn of_two_agents_nobody_knows_who_said_what() {
    let mut known = model(&format!("{AGENT}{}", AGENT.replace("8081", "8082")));
    let backends = &mut known.services.get_mut("web").unwrap().backends;
    backends.get_mut("web1").unwrap().agent = DRAINED_HALF;
    let (mut board, agents, _) = board(&known);
    says(&mut board, &agents[0], Some(AdminState::Ready), None);
    let ready = AgentState {
        admin: Some(AdminState::Ready),
        weight_percent: None,
    };
    assert_eq!(state(&board), ready);
}
