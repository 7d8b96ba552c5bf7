use std::net::SocketAddr;
use std::sync::Arc;

use super::*;
use crate::health::probe::Target;
use crate::model::AdminState;
use crate::model::check::{AgentCheck, Check, ExchangeCheck, Timing, Via};

/// A question to port `port` of a host; what is known of it is found by that.
fn question(port: u16, kind: CheckKind) -> Arc<Question> {
    Arc::new(Question {
        target: Target {
            address: SocketAddr::new([10, 0, 0, 1].into(), port),
            source: None,
            vip: None,
        },
        check: Check {
            kind,
            timing: Timing::DEFAULT,
            port: None,
            source: None,
            via: Via::Direct,
        },
        hold_down_max_ms: 0,
    })
}

fn tcp(port: u16) -> Arc<Question> {
    question(port, CheckKind::Tcp(ExchangeCheck::default()))
}

fn plan(role: Role, backends: &[(&str, Vec<Arc<Question>>)]) -> ServicePlan {
    let backends = backends.iter().cloned();
    ServicePlan {
        mode: CheckMode::All,
        role,
        max_lag_s: Some(10),
        primary_as_last_resort: false,
        backends: backends
            .map(|(name, asked)| (name.to_owned(), asked))
            .collect(),
    }
}

/// What is known, by port.
#[derive(Default)]
struct World(BTreeMap<u16, (Health, Observed, Option<AgentWords>)>);

impl World {
    fn know(&mut self, port: u16, health: Health, observed: Observed) {
        self.0.insert(port, (health, observed, None));
    }

    fn judge(&self, plan: &ServicePlan) -> Option<Verdict> {
        let nothing = Observed::default();
        judge(plan, |question| {
            Some(match self.0.get(&question.target.address.port()) {
                Some((health, observed, agent)) => Known {
                    is_asked: true,
                    health: *health,
                    observed,
                    agent: agent.as_ref(),
                },
                None => Known {
                    is_asked: false,
                    health: Health::Unknown,
                    observed: &nothing,
                    agent: None,
                },
            })
        })
    }

    fn fit(&self, plan: &ServicePlan) -> Vec<String> {
        let verdict = self.judge(plan).unwrap();
        let fit = verdict.backends.into_iter();
        fit.filter(|(_, finding)| finding.fit == Fit::Fit)
            .map(|(name, _)| name)
            .collect()
    }
}

fn primary() -> Observed {
    Observed {
        writable: Some(true),
        ..Observed::default()
    }
}

fn replica(lag_s: Option<u32>, is_running: bool) -> Observed {
    Observed {
        writable: Some(false),
        replication_running: Some(is_running),
        lag_s,
        ..Observed::default()
    }
}

fn database(role: Role) -> ServicePlan {
    plan(
        role,
        &[
            ("db1", vec![tcp(1)]),
            ("db2", vec![tcp(2)]),
            ("db3", vec![tcp(3)]),
        ],
    )
}

#[test]
fn checks_are_combined_as_the_service_says() {
    use Health::{Down, Unknown, Up};
    let mut both = plan(Role::None, &[("web1", vec![tcp(1), tcp(2)])]);
    for (one, other, all, any) in [
        (Up, Up, Up, Up),
        (Up, Down, Down, Up),
        (Down, Down, Down, Down),
        (Up, Unknown, Unknown, Up),
        (Down, Unknown, Down, Unknown),
    ] {
        let mut world = World::default();
        world.know(1, one, Observed::default());
        world.know(2, other, Observed::default());
        for (mode, expected) in [(CheckMode::All, all), (CheckMode::Any, any)] {
            both.mode = mode;
            let verdict = world.judge(&both).unwrap();
            assert_eq!(
                verdict.backends["web1"].health, expected,
                "{one:?} {other:?} {mode:?}"
            );
        }
    }
}

#[test]
fn an_agent_may_dismiss_its_backend_but_its_silence_says_nothing() {
    let agent = question(2, CheckKind::Agent(AgentCheck::default()));
    let web = plan(Role::None, &[("web1", vec![tcp(1), agent])]);
    let mut world = World::default();
    world.know(1, Health::Up, Observed::default());
    world.know(2, Health::Down, Observed::default());
    let silent = world.judge(&web).unwrap().backends["web1"];
    assert_eq!(
        (silent.health, silent.agent),
        (Health::Up, AgentState::default())
    );

    let words = AgentWords {
        is_up: Some(true),
        admin: Some(AdminState::Drain),
        weight_percent: Some(50),
    };
    world
        .0
        .insert(2, (Health::Up, Observed::default(), Some(words.clone())));
    let told = world.judge(&web).unwrap().backends["web1"];
    assert_eq!(told.words(), "up, agent drain, 50 %");
    let dismissed = AgentWords {
        is_up: Some(false),
        ..words
    };
    world
        .0
        .insert(2, (Health::Down, Observed::default(), Some(dismissed)));
    let told = world.judge(&web).unwrap().backends["web1"];
    assert_eq!(told.health, Health::Down);
}

#[test]
fn writes_go_to_the_one_that_accepts_them_and_to_nobody_while_two_do() {
    let writer = database(Role::Writer);
    let mut world = World::default();
    world.know(1, Health::Up, primary());
    world.know(2, Health::Up, replica(Some(0), true));
    assert_eq!(world.judge(&writer), None, "db3 was not asked yet");
    world.know(3, Health::Down, Observed::default());
    assert_eq!(world.fit(&writer), ["db1"]);
    assert_eq!(world.judge(&writer).unwrap().alarm, None);

    world.know(2, Health::Up, primary());
    assert_eq!(world.fit(&writer), [""; 0]);
    let alarm = world.judge(&writer).unwrap().alarm.unwrap();
    assert_eq!(alarm, "`db1` and `db2` accept writes: nobody gets any");

    world.know(1, Health::Down, primary());
    assert_eq!(world.fit(&writer), ["db2"], "the dead one has no say");
    world.know(1, Health::Up, replica(Some(0), true));
    assert_eq!(world.fit(&writer), ["db2"], "demoted");
    world.know(2, Health::Up, replica(Some(0), true));
    assert_eq!(world.fit(&writer), [""; 0]);
    let alarm = world.judge(&writer).unwrap().alarm;
    assert_eq!(alarm.as_deref(), Some("no backend accepts writes"));
}

#[test]
fn reads_go_to_replicas_that_follow_closely() {
    let mut reader = database(Role::Reader);
    let mut world = World::default();
    world.know(1, Health::Up, primary());
    world.know(2, Health::Up, replica(Some(10), true));
    world.know(3, Health::Up, replica(Some(11), true));
    assert_eq!(world.fit(&reader), ["db2"]);
    world.know(3, Health::Up, replica(Some(0), false));
    assert_eq!(world.fit(&reader), ["db2"], "db3's replication has stopped");
    world.know(3, Health::Up, replica(None, true));
    assert_eq!(world.fit(&reader), ["db2"], "nobody knows how far db3 is");
    world.know(2, Health::Down, replica(Some(0), true));
    assert_eq!(world.fit(&reader), [""; 0]);
    reader.primary_as_last_resort = true;
    assert_eq!(world.fit(&reader), ["db1"]);
    world.know(3, Health::Up, replica(Some(1), true));
    assert_eq!(world.fit(&reader), ["db3"]);
}
