//! `[cluster]` and `[[vrrp]]`: what becomes of them, and every mistake with its place.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use super::tests::{WEB, mistake, mistakes, model, overrides};
use super::{Loaded, parse};
use crate::model::Change;
use crate::model::cluster::{Track, Tracked};
use crate::model::draft::Draft;
use crate::model::rules::check;

/// A secret, written with this mode.
fn secret(directory: &Path, mode: u32, content: &str) -> PathBuf {
    let path = directory.join("cluster.key");
    std::fs::write(&path, content).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
    path
}

const GOOD: &str = "q9Kx0Zr1tV8mN2pL5sWd7fYhJcBgUeAo+/34";

/// `[cluster]` with a good secret, and `more` at its end, then `[[cluster.peer]]`s.
struct Site {
    directory: tempfile::TempDir,
}

impl Site {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        secret(directory.path(), 0o600, GOOD);
        Self { directory }
    }

    fn cluster(&self, more: &str) -> String {
        let path = self.directory.path().join("cluster.key");
        format!(
            "[cluster]\nlisten = \"10.0.9.1:7946\"\nsecret_file = \"{}\"\n{more}",
            path.display()
        )
    }
}

const PEER: &str = "[[cluster.peer]]\nname = \"lb2\"\naddress = \"10.0.9.2:7946\"\n";

/// A group without its VIPs.
const GROUP: &str = "[[vrrp]]\nname = \"web\"\ninterface = \"eth0\"\nvrid = 51\n";

fn group(more: &str) -> String {
    format!("{GROUP}vips = [\"203.0.113.10\"]\n{more}")
}

fn warnings(text: &str) -> Vec<String> {
    let Loaded { warnings, .. } = parse("lbd.toml", text, &overrides()).unwrap();
    warnings.lines().collect()
}

/// The one mistake among others that contains these words.
#[track_caller]
fn has_mistake(text: &str, words: &str) {
    let mistakes = mistakes(text);
    assert!(
        mistakes.iter().any(|one| one.contains(words)),
        "{words:?} is not in {mistakes:#?}"
    );
}

fn full(site: &Site) -> String {
    let more = format!("heartbeat = \"50ms\"\npatience = \"30s\"\n{PEER}");
    format!(
        "{}{}{WEB}",
        site.cluster(&more),
        "[[vrrp]]\nname = \"web\"\ninterface = \"eth0\"\nvrid = 51\n\
         vips = [\"203.0.113.10\", \"2001:db8::10\"]\npriority = 200\ninterval = \"100ms\"\n\
         preempt = true\npreempt_delay = \"500ms\"\npeers = [\"10.0.0.2\", \"2001:db8::2\"]\n\
         source = \"10.0.0.1\"\naccept = false\nvirtual_mac = true\nauthenticate = false\n\
         [[vrrp.track]]\ninterface = \"eth1\"\nweight = 50\n\
         [[vrrp.track]]\nservice = \"web\"\nlive_backends = 2\n"
    )
}

#[test]
fn every_key_reaches_the_model_and_survives_a_change() {
    let site = Site::new();
    let model = model(&full(&site));
    let cluster = model.cluster.as_ref().unwrap();
    assert_eq!(cluster.listen, "10.0.9.1:7946".parse().unwrap());
    assert_eq!((cluster.heartbeat_ms, cluster.patience_s), (50, 30));
    assert_eq!(
        cluster.peers["lb2"].address,
        "10.0.9.2:7946".parse().unwrap()
    );
    let web = &model.vrrp["web"];
    assert_eq!((web.interface.as_str(), web.vrid), ("eth0", 51));
    assert_eq!(
        (web.vips.len(), web.peers.len(), web.sources.len()),
        (2, 2, 1)
    );
    assert_eq!(
        (web.priority, web.interval_cs, web.preempt_delay_ms),
        (200, 10, 500)
    );
    assert_eq!(
        (web.preempt, web.accept, web.virtual_mac, web.authenticate),
        (true, false, true, false)
    );
    let tracks = [
        Track {
            what: Tracked::Interface("eth1".to_owned()),
            weight: Some(50),
        },
        Track {
            what: Tracked::Service {
                name: "web".to_owned(),
                live_backends_min: 2,
            },
            weight: None,
        },
    ];
    assert_eq!(web.tracks, tracks);
    let again = check(&Draft::from(&model));
    assert_eq!(again.model.as_ref(), Some(&model));
    // Nobody reads the secret again for a change of something else.
    drop(site);
    let remove = Change::RemoveService {
        service: "web".to_owned(),
    };
    let refused = model.apply(remove).unwrap_err().to_string();
    assert!(refused.contains("there is no service `web`"), "{refused}");
    let web1 = crate::model::Backend::new("web1", "10.0.0.11".parse().unwrap(), 80);
    let add = Change::AddBackend {
        service: "web".to_owned(),
        backend: web1,
    };
    let (changed, _) = model.apply(add).unwrap();
    assert_eq!(
        (&changed.cluster, &changed.vrrp),
        (&model.cluster, &model.vrrp)
    );
}

#[test]
fn defaults_are_those_of_the_protocol() {
    let site = Site::new();
    let alone = model(&group(""));
    let web = &alone.vrrp["web"];
    assert_eq!((web.priority, web.interval_cs), (100, 100));
    assert_eq!(
        (web.preempt, web.accept, web.virtual_mac, web.authenticate),
        (true, true, false, false)
    );
    let pair = model(&format!("{}{}", site.cluster(PEER), group("")));
    let cluster = pair.cluster.unwrap();
    assert_eq!((cluster.heartbeat_ms, cluster.patience_s), (100, 120));
    assert!(pair.vrrp["web"].authenticate);
}

#[test]
fn a_secret_is_a_file_that_nobody_else_can_read() {
    let directory = tempfile::tempdir().unwrap();
    let text = |path: &Path| {
        format!(
            "[cluster]\nlisten = \"10.0.9.1:7946\"\nsecret_file = \"{}\"\n{PEER}",
            path.display()
        )
    };
    let missing = mistake(&text(&directory.path().join("none")));
    assert!(missing.starts_with("3:15: error: secret_file"), "{missing}");
    assert!(missing.contains("does not exist"), "{missing}");
    assert!(missing.contains("head -c 32 /dev/urandom"), "{missing}");
    for (mode, content, words) in [
        (0o640, GOOD, "has mode 640"),
        (0o604, GOOD, "chmod 600"),
        (0o600, "too short", "has 9 bytes"),
        (
            0o600,
            "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
            "1 different bytes",
        ),
    ] {
        let path = secret(directory.path(), mode, content);
        let told = mistake(&text(&path));
        assert!(told.contains(words), "{told}");
        assert!(!told.contains(GOOD), "{told}");
    }
    let path = secret(directory.path(), 0o600, GOOD);
    if std::os::unix::fs::chown(&path, Some(65_534), None).is_ok() {
        assert!(mistake(&text(&path)).contains("belongs to user 65534"));
    }
    assert!(mistake(&text(directory.path())).contains("no regular file"));
    assert!(mistake(&text(Path::new("cluster.key"))).contains("no absolute path"));
}

#[test]
fn each_mistake_in_the_cluster_has_its_place() {
    let site = Site::new();
    for (more, expected) in [
        (
            "heartbeat = \"5ms\"\n",
            "4:13: error: cluster: heartbeat 5 is not in 10 to 10000 milliseconds",
        ),
        (
            "patience = \"0s\"\n",
            "4:12: error: cluster: patience 0 is not in 1 to 86400 seconds",
        ),
        (
            "patience = \"2s\"\nheartbeat = \"1s\"\n",
            "4:12: error: cluster: a patience of 2 s is less than 10 heartbeats of 1000 ms (a few heartbeats may \
             be lost: wait longer, or send them more often)",
        ),
        (
            "[[cluster.peer]]\nname = \"host\"\naddress = \"10.0.9.3:7946\"\n",
            "5:8: error: cluster, peer `host`: is this node's own name (list the other nodes alone, each under its \
             [node] name)",
        ),
        (
            "[[cluster.peer]]\nname = \"lb3\"\naddress = \"10.0.9.1:7946\"\n",
            "6:11: error: cluster, peer `lb3`: address 10.0.9.1:7946 is this node's own",
        ),
        (
            "[[cluster.peer]]\nname = \"lb3\"\naddress = \"[2001:db8::3]:7946\"\n",
            "6:11: error: cluster, peer `lb3`: address [2001:db8::3]:7946 is IPv6, and this node listens at an \
             address of IPv4",
        ),
        (
            "[[cluster.peer]]\nname = \"lb3\"\naddress = \"10.0.9.3:0\"\n",
            "6:11: error: cluster, peer `lb3`: address 10.0.9.3:0 has the port 0 (write what that node has as \
             cluster.listen)",
        ),
        (
            "[[cluster.peer]]\nname = \"lb3\"\n",
            "4:1: error: cluster, peer `lb3`: `address` is missing",
        ),
        (
            "[[cluster.pear]]\nname = \"lb3\"\n",
            "4:11: error: unknown key `pear` (did you mean `peer`?)",
        ),
    ] {
        let text = site.cluster(more);
        let told = mistakes(&text);
        let errors: Vec<_> = told
            .iter()
            .filter(|one| one.contains(": error: "))
            .collect();
        assert_eq!(errors, [expected], "{more}");
    }
    let twice = site.cluster(&format!("{PEER}{PEER}"));
    has_mistake(&twice, "peer `lb2`: is named twice");
    has_mistake(&twice, "address 10.0.9.2:7946 is another peer's, too");
    let many: String = (2..7)
        .map(|n| format!("[[cluster.peer]]\nname = \"lb{n}\"\naddress = \"10.0.9.{n}:7946\"\n"))
        .collect();
    has_mistake(&site.cluster(&many), "5 peers, and there can be 4");
    let anywhere = site.cluster(PEER).replace("10.0.9.1:7946", "0.0.0.0:7946");
    has_mistake(&anywhere, "listen 0.0.0.0:7946 is the unspecified address");
    let empty = mistakes("[cluster]\n");
    assert!(empty[0].contains("`listen` is missing"), "{empty:?}");
    assert!(empty[1].contains("`secret_file` is missing"), "{empty:?}");
    assert!(
        warnings(&site.cluster(""))
            .iter()
            .any(|one| one.contains("nobody to talk to"))
    );
}

#[test]
fn each_mistake_in_a_group_has_its_place() {
    for (more, expected) in [
        ("vrid = 0\n", "vrid 0 is not in 1 to 255"),
        ("priority = 256\n", "priority 256 is not in 1 to 255"),
        (
            "interval = \"41s\"\n",
            "interval 41000 is not in 10 to 40950 milliseconds",
        ),
        (
            "interval = \"15ms\"\n",
            "interval 15 ms is no whole number of centiseconds (VRRP counts in 10 ms (RFC 9568 section 5.2.7): \
             write 10ms or 20ms)",
        ),
        (
            "preempt_delay = \"2h\"\n",
            "preempt_delay 7200000 is not in 0 to 3600000 milliseconds",
        ),
        (
            "authenticate = true\n",
            "authenticate = true takes the secret of a [cluster], and there is none (add [cluster] with listen \
             and secret_file, or leave authenticate out)",
        ),
        (
            "priority = 255\npreempt = false\n",
            "priority 255 is for the owner of the addresses, who preempts always: preempt = false contradicts \
             that (set a priority of at most 254)",
        ),
        (
            "peers = [\"2001:db8::2\", \"10.0.0.2\"]\n",
            "peers: there is an address of IPv6, and no VIP of it",
        ),
        (
            "peers = [\"203.0.113.10\"]\n",
            "peer 203.0.113.10 is a VIP of the group",
        ),
        (
            "peers = [\"10.0.0.2\", \"10.0.0.2\"]\n",
            "peer 10.0.0.2 is written twice",
        ),
        (
            "peers = \"224.0.0.18\"\n",
            "peer 224.0.0.18 is a multicast address",
        ),
        (
            "source = [\"10.0.0.1\", \"10.0.0.3\"]\n",
            "more than one source of IPv4",
        ),
        (
            "peers = [\"10.0.0.1\"]\nsource = \"10.0.0.1\"\n",
            "peer 10.0.0.1 is this node's own source",
        ),
    ] {
        let base = group("").replace(
            "vrid = 51\n",
            if more.starts_with("vrid") {
                ""
            } else {
                "vrid = 51\n"
            },
        );
        let told = mistakes(&format!("{base}{more}{WEB}"));
        let errors: Vec<_> = told
            .iter()
            .filter(|one| one.contains(": error: "))
            .collect();
        let [error] = errors.as_slice() else {
            panic!("{more}: {told:#?}");
        };
        let words = format!("vrrp group `web`: {expected}");
        assert!(error.ends_with(&words), "{error} is not {words}");
    }
    for (vips, words) in [
        ("[]", "vips is empty"),
        ("[\"127.0.0.1\"]", "VIP 127.0.0.1 is a loopback address"),
        ("[\"203.0.113.10\", \"203.0.113.10\"]", "is written twice"),
        ("[\"203.0.113.10/24\"]", "write it without a prefix length"),
        ("[7]", "`vips` is a list, not a list of addresses"),
        ("7", "`vips` is a whole number, not a list of addresses"),
    ] {
        has_mistake(&format!("{GROUP}vips = {vips}\n"), words);
    }
    let no_peer_of_family =
        format!("{GROUP}vips = [\"203.0.113.10\", \"2001:db8::10\"]\npeers = [\"10.0.0.2\"]\n");
    has_mistake(
        &no_peer_of_family,
        "there are VIPs of IPv6, and no unicast peer of it to tell",
    );
    let empty = mistakes("[[vrrp]]\n");
    for key in ["name", "interface", "vrid", "vips"] {
        let words = format!("`{key}` is missing");
        assert!(
            empty.iter().any(|one| one.contains(&words)),
            "{key}: {empty:?}"
        );
    }
}

#[test]
fn what_a_group_watches_is_one_thing_that_is_there() {
    for (track, words) in [
        ("weight = 3\n", "it has neither `interface` nor `service`"),
        (
            "interface = \"eth1\"\nservice = \"web\"\n",
            "it has both `interface` and `service`",
        ),
        (
            "service = \"wev\"\n",
            "there is no service `wev` (did you mean `web`?)",
        ),
        (
            "interface = \"eth1\"\nweight = 0\n",
            "weight 0 is not in 1 to 254",
        ),
        (
            "service = \"web\"\nlive_backends = 0\n",
            "live_backends 0 is not in 1 to",
        ),
        (
            "interface = \"eth1\"\nlive_backends = 1\n",
            "live_backends is for a service",
        ),
        ("interface = \"eth/1\"\n", "no interface can have this name"),
    ] {
        let text = format!("{}[[vrrp.track]]\n{track}{WEB}", group(""));
        has_mistake(&text, words);
    }
    let twice = "[[vrrp.track]]\ninterface = \"eth1\"\n".repeat(2);
    has_mistake(
        &group(&twice),
        "track number 2: is tracked twice by the group",
    );
    let owner = format!(
        "{}[[vrrp.track]]\ninterface = \"eth1\"\nweight = 3\n",
        group("priority = 255\n")
    );
    has_mistake(
        &owner,
        "who never has a lower one: a weight contradicts that",
    );
    let many: String = (0..17)
        .map(|n| format!("[[vrrp.track]]\ninterface = \"eth{n}\"\n"))
        .collect();
    has_mistake(&group(&many), "17 tracks, and a group has at most 16");
}

#[test]
fn groups_share_neither_names_nor_vips_nor_ids() {
    let other = |name: &str, vrid: u8, vip: &str| {
        format!(
            "[[vrrp]]\nname = \"{name}\"\ninterface = \"eth0\"\nvrid = {vrid}\nvips = [\"{vip}\"]\n"
        )
    };
    let with = |other: String| format!("{}{other}", group(""));
    has_mistake(
        &with(other("web", 52, "203.0.113.11")),
        "there is one of this name already",
    );
    has_mistake(
        &with(other("db", 52, "203.0.113.10")),
        "VIP 203.0.113.10 belongs to vrrp group `web` already",
    );
    has_mistake(
        &with(other("db", 51, "203.0.113.11")),
        "vrid 51 on eth0 belongs to vrrp group `web` already, for IPv4",
    );
    // Another family is another virtual router.
    assert_eq!(model(&with(other("db", 51, "2001:db8::11"))).vrrp.len(), 2);
    let many: String = (1..=65)
        .map(|n| other(&format!("g{n}"), n, &format!("203.0.113.{n}")))
        .collect();
    has_mistake(&many, "65 groups, and there can be 64");
    let backend = format!(
        "{}{WEB}[[service.backend]]\naddress = \"203.0.113.10\"\n",
        group("")
    );
    has_mistake(&backend, "its address is a VIP of vrrp group `web`");
    let site = Site::new();
    let sync = format!("{}{}", site.cluster(PEER), other("sync", 1, "10.0.9.1"));
    has_mistake(&sync, "10.0.9.1 is a VIP of vrrp group `sync`");
}

#[test]
fn what_is_worth_knowing_is_told() {
    let site = Site::new();
    let quiet = format!(
        "{}[[interface]]\nname = \"eth0\"\n{}{WEB}[[service.backend]]\naddress = \"10.0.0.11\"\n",
        site.cluster(PEER),
        group("")
    );
    assert_eq!(warnings(&quiet), [""; 0]);
    for (text, words) in [
        (group(""), "VIP 203.0.113.10 is no service's"),
        (
            format!("[[interface]]\nname = \"eth1\"\n{}{WEB}", group("")),
            "the datapath is not attached to eth0",
        ),
        (
            format!("{}{WEB}", site.cluster(PEER)),
            "VIP 203.0.113.10 is in no [[vrrp]] group",
        ),
        (group("priority = 255\n"), "254 is the highest priority"),
        (
            group("preempt = false\npreempt_delay = \"1s\"\n"),
            "preempt_delay has no effect",
        ),
        (
            group("[[vrrp.track]]\ninterface = \"eth0\"\n"),
            "eth0 is the group's own interface",
        ),
        (
            format!("{}[[vrrp.track]]\nservice = \"web\"\n{WEB}", group("")),
            "service `web` has 0 backends, and 1 shall be live",
        ),
    ] {
        let told = warnings(&text);
        assert!(
            told.iter().any(|one| one.contains(words)),
            "{words}: {told:#?}"
        );
    }
    // A VLAN's parent has the datapath.
    let vlan = format!(
        "[[interface]]\nname = \"eth0\"\n{}{WEB}",
        group("").replace("\"eth0\"", "\"eth0.7\"")
    );
    assert!(
        !warnings(&vlan)
            .iter()
            .any(|one| one.contains("not attached"))
    );
}

#[test]
fn groups_whose_names_do_not_fit_a_heartbeat_are_refused() {
    let site = Site::new();
    let groups = |name_len: usize| -> String {
        let group = |number: usize| {
            format!(
                "[[vrrp]]\nname = \"{number:0name_len$}\"\ninterface = \"eth0\"\nvrid = {}\n\
                 vips = [\"203.0.113.{}\"]\npeers = [\"10.0.0.2\"]\n",
                number + 1,
                number + 1
            )
        };
        (0..20).map(group).collect()
    };
    let with_cluster = |groups: &str| format!("{}{groups}", site.cluster(PEER));
    assert_eq!(model(&with_cluster(&groups(35))).vrrp.len(), 20);
    has_mistake(&with_cluster(&groups(36)), "take 820 bytes of a heartbeat");
    assert_eq!(model(&groups(36)).vrrp.len(), 20, "nobody is told");
}
