use super::*;
use crate::config::{Overrides, parse};
use crate::vrrp::protocol::Family;
use crate::vrrp::protocol::tests::router;

/// A node without links, and the end by which its `lbd-vrrp` says how it is.
fn node() -> (Task, watch::Sender<Option<Status>>) {
    let overrides = Overrides {
        interfaces: vec!["eth0".to_owned()],
        node: "lb1".to_owned(),
    };
    let model = parse("lbd.toml", "", &overrides).unwrap().model;
    let (says, status) = watch::channel(None);
    let ends = Ends {
        engine: EngineHandle::new().0,
        models: watch::channel(Arc::new(model)).1,
        fitness: watch::channel(Fitness::default()).1,
        joined: None,
        vrrp_key: None,
        pins: String::new(),
        anew: mpsc::channel(1).0,
    };
    let wires = Wires {
        configuration: watch::Sender::new(None),
        facts: watch::Sender::new(Facts::default()),
        status,
    };
    (Task::new(ends, wires, PeersHandle::default()), says)
}

fn heard(task: &mut Task) -> Vec<PeerNews> {
    let mut news = Vec::new();
    task.note_own(&mut news);
    news
}

/// Else the rings would be this node's and, by its next hello, a peer's: each would overrule the other for ever.
#[test]
fn a_node_whose_lbd_vrrp_says_nothing_any_more_is_active_for_nobody() {
    let (mut task, says) = node();
    let own_active = |groups| [PeerNews::OwnActive(groups)];
    assert_eq!(heard(&mut task), []);
    says.send_replace(Some(Status {
        routers: vec![router(State::Active)],
        ..Status::default()
    }));
    let web = BTreeSet::from([("web".to_owned(), Family::Ipv4)]);
    assert_eq!(heard(&mut task), own_active(web));
    says.send_replace(None);
    assert_eq!(heard(&mut task), own_active(BTreeSet::new()));
    assert_eq!(heard(&mut task), [], "once");
}
