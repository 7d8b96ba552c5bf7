//! The kernel's routing tables, read and changed for real, in network namespaces of the test's own.

use std::future::Future;
use std::net::IpAddr;
use std::time::Duration;

use lb_lab::link::veth_pair;
use lb_lab::{Netns, require};
use lb_userspace::netlink::Netlink;
use lb_userspace::netlink::monitor::{Changes, Monitor};
use lb_userspace::netlink::view::{NeighbourState, RouteTarget, View};

const PEER: &str = "10.0.0.9";
const PEER_V6: &str = "2001:db8::9";
const VIP: &str = "203.0.113.10";
const VIP_V6: &str = "2001:db8::10";

/// How long the kernel may take for what it does at once.
const PATIENCE: Duration = Duration::from_secs(5);

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// A node with one interface, `eth0`, and a peer at its other end.
struct Pair {
    node: Netns,
    _peer: Netns,
}

impl Pair {
    fn build() -> Self {
        let (node, peer) = (
            Netns::create("node").unwrap(),
            Netns::create("peer").unwrap(),
        );
        veth_pair((&node, "eth0"), (&peer, "eth0")).unwrap();
        node.ip("addr add 10.0.0.1/24 dev eth0\n\
                 addr add 2001:db8::1/64 dev eth0 nodad\n\
                 link set eth0 up\n\
                 route add 192.0.2.0/24 via 10.0.0.9 metric 50\n\
                 route add blackhole 198.51.100.0/24")
            .unwrap();
        peer.ip("addr add 10.0.0.9/24 dev eth0\n\
                 addr add 2001:db8::9/64 dev eth0 nodad\n\
                 link set eth0 up")
            .unwrap();
        Self { node, _peer: peer }
    }

    /// The source of the node's own packets to `destination`.
    fn source_of(&self, destination: &str) -> String {
        let mut command = self.node.command("ip");
        let output = command
            .args(["route", "get", destination])
            .output()
            .unwrap();
        let route = String::from_utf8(output.stdout).unwrap();
        let mut words = route.split_whitespace().skip_while(|word| *word != "src");
        let source = words.nth(1).map(str::to_owned);
        source.unwrap_or_else(|| panic!("no source in {route}"))
    }

    /// Runs `work` in the node's namespace, on a thread that stays there.
    fn run<F: Future<Output = ()>>(&self, work: impl FnOnce() -> F + Send) {
        let block_on = || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(work());
        };
        self.node.run(block_on).unwrap();
    }
}

/// Reads the links until `is_done`, woken by the kernel.
async fn read_until(
    netlink: &Netlink,
    monitor: &mut Monitor,
    is_done: impl Fn(&View) -> bool,
) -> View {
    let wait = async {
        let mut view = View::default();
        loop {
            netlink.read_links(&mut view).await.unwrap();
            netlink.read_routes(&mut view).await.unwrap();
            netlink.read_neighbours(&mut view).await.unwrap();
            if is_done(&view) {
                return view;
            }
            monitor.changed().await.unwrap();
        }
    };
    tokio::time::timeout(PATIENCE, wait)
        .await
        .expect("the kernel has not said so in time")
}

#[test]
fn tables_are_read_and_routes_looked_up() {
    if require(&["ip"]).is_missing() {
        return;
    }
    Pair::build().run(|| async {
        let (netlink, mut monitor) = (Netlink::open().unwrap(), Monitor::open().unwrap());
        let view = read_until(&netlink, &mut monitor, |view| {
            view.routes.iter().any(|route| route.priority == 50)
        })
        .await;
        let ifindex = view.ifindex("eth0").unwrap();
        let link = &view.links[&ifindex];
        assert!(link.is_up && link.address.is_some(), "{link:?}");
        let loopback = &view.links[&view.ifindex("lo").unwrap()];
        assert_eq!(loopback.address, None, "lo is not Ethernet");
        assert_eq!(
            view.holders(ip("2001:db8::1")).collect::<Vec<_>>(),
            [ifindex]
        );

        let gateway = ip(PEER);
        let target_of = |destination: &str| {
            let found = view
                .routes
                .iter()
                .find(|one| one.destination == ip(destination));
            found
                .unwrap_or_else(|| panic!("{destination} in {:?}", view.routes))
                .target
        };
        assert_eq!(target_of("10.0.0.0"), RouteTarget::OnLink { ifindex });
        assert_eq!(
            target_of("192.0.2.0"),
            RouteTarget::Gateway { ifindex, gateway }
        );
        assert_eq!(target_of("198.51.100.0"), RouteTarget::Nowhere);
        assert_eq!(target_of("2001:db8::"), RouteTarget::OnLink { ifindex });

        let answers = [
            (PEER, Ok(RouteTarget::OnLink { ifindex })),
            (PEER_V6, Ok(RouteTarget::OnLink { ifindex })),
            ("192.0.2.1", Ok(RouteTarget::Gateway { ifindex, gateway })),
            (
                "10.0.0.1",
                Err("10.0.0.1 is an address of this node".to_owned()),
            ),
        ];
        for (destination, answer) in answers {
            let looked_up = netlink.look_up(ip(destination)).await.unwrap();
            assert_eq!(looked_up, answer);
        }
        for destination in ["198.51.100.1", "8.8.8.8", "2001:db9::1"] {
            let answer = netlink.look_up(ip(destination)).await.unwrap();
            let reason = answer.unwrap_err();
            assert!(
                reason.starts_with(&format!("no route to {destination}")),
                "{reason}"
            );
        }
    });
}

#[test]
fn a_neighbour_is_resolved_on_request() {
    if require(&["ip"]).is_missing() {
        return;
    }
    Pair::build().run(|| async {
        let (netlink, mut monitor) = (Netlink::open().unwrap(), Monitor::open().unwrap());
        let mut view = View::default();
        netlink.read_links(&mut view).await.unwrap();
        let ifindex = view.ifindex("eth0").unwrap();
        for host in [(ifindex, ip(PEER)), (ifindex, ip(PEER_V6))] {
            netlink.resolve(host).await.unwrap();
            let view = read_until(&netlink, &mut monitor, |view| {
                let entry = view.neighbours.get(&host);
                entry.is_some_and(|entry| entry.state == NeighbourState::Confirmed)
            })
            .await;
            assert!(view.neighbours[&host].address.is_some());
            // Asking again for what is known is no error.
            netlink.resolve(host).await.unwrap();
        }
    });
}

#[test]
fn a_vip_comes_and_goes_and_both_are_heard() {
    if require(&["ip"]).is_missing() {
        return;
    }
    Pair::build().run(|| async {
        let (netlink, mut monitor) = (Netlink::open().unwrap(), Monitor::open().unwrap());
        let mut view = View::default();
        netlink.read_links(&mut view).await.unwrap();
        let ifindex = view.ifindex("eth0").unwrap();
        for vip in [ip(VIP), ip(VIP_V6)] {
            netlink.add_vip(ifindex, vip).await.unwrap();
            let heard = tokio::time::timeout(PATIENCE, monitor.changed()).await;
            assert_eq!(heard.unwrap().unwrap(), Changes::ALL);
            netlink.read_links(&mut view).await.unwrap();
            assert_eq!(view.holders(vip).collect::<Vec<_>>(), [ifindex]);
            let twice = netlink.add_vip(ifindex, vip).await.unwrap_err();
            assert!(
                twice
                    .to_string()
                    .starts_with(&format!("cannot add VIP {vip}: File exists"))
            );

            netlink.remove_vip(ifindex, vip).await.unwrap();
            read_until(&netlink, &mut monitor, |view| {
                view.holders(vip).next().is_none()
            })
            .await;
            netlink.remove_vip(ifindex, vip).await.unwrap();
        }
    });
}

/// A VIP nearer to the destination than the node's own address would win by the longest matching
/// prefix (RFC 6724 section 5 rule 8).
#[test]
fn a_vip_is_not_the_source_of_the_nodes_own_packets() {
    if require(&["ip"]).is_missing() {
        return;
    }
    let pair = Pair::build();
    let near = ["10.0.0.8", "2001:db8::8"];
    let sources = || [PEER, PEER_V6].map(|peer| pair.source_of(peer));
    let before = sources();
    pair.run(|| async {
        let netlink = Netlink::open().unwrap();
        let mut view = View::default();
        netlink.read_links(&mut view).await.unwrap();
        let ifindex = view.ifindex("eth0").unwrap();
        for vip in near {
            netlink.add_vip(ifindex, ip(vip)).await.unwrap();
        }
    });
    assert_eq!(sources(), before);
}
