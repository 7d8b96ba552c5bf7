//! The real `lbd-vrrp`, and the supervisor that looks after it. Its groups are on an interface that does not exist:
//! what it does on one is in the end-to-end tests, which have networks of their own.

use std::path::{Path, PathBuf};
use std::time::Duration;

use lb_userspace::vrrp::protocol::{Configuration, Facts, Group, State, Status};
use lb_userspace::vrrp::supervisor::{FailoverError, Options, Supervisor, vrrp_socket};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::sync::watch;
use tokio::time::timeout;

/// Longer than anything here takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);

fn group(name: &str, vrid: u8) -> Group {
    Group {
        name: name.to_owned(),
        interface: "nowhere0".to_owned(),
        vrid,
        vips: vec![[203, 0, 113, vrid].into()],
        priority: 100,
        interval_cs: 100,
        preempt: true,
        preempt_delay_ms: 0,
        peers: Vec::new(),
        sources: Vec::new(),
        accept: true,
        virtual_mac: false,
        authenticate: false,
        tracks: Vec::new(),
    }
}

fn configuration(groups: &[Group]) -> Configuration {
    Configuration {
        node: "lb1".to_owned(),
        groups: groups.to_vec(),
        ..Configuration::default()
    }
}

/// A supervisor, what it is told, and the directory of its files. A process that is left is ended.
struct Stage {
    directory: tempfile::TempDir,
    configuration: watch::Sender<Option<Configuration>>,
    facts: watch::Sender<Facts>,
    supervisor: Option<Supervisor>,
    program: PathBuf,
}

impl Stage {
    fn new(groups: &[Group]) -> Self {
        Self::with(PathBuf::from(env!("CARGO_BIN_EXE_lbd-vrrp")), groups)
    }

    fn with(program: PathBuf, groups: &[Group]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let mut stage = Self {
            directory,
            configuration: watch::Sender::new(Some(configuration(groups))),
            facts: watch::Sender::new(Facts::default()),
            supervisor: None,
            program,
        };
        stage.start();
        stage
    }

    fn start(&mut self) {
        let options = Options {
            socket: self.lbd_socket(),
            program: Some(self.program.clone()),
            log: "info".to_owned(),
            log_format: "text".to_owned(),
        };
        let (configuration, facts) = (self.configuration.subscribe(), self.facts.subscribe());
        self.supervisor = Some(Supervisor::start(options, configuration, facts));
    }

    fn lbd_socket(&self) -> PathBuf {
        self.directory.path().join("lbd.sock")
    }

    fn supervisor(&self) -> &Supervisor {
        self.supervisor.as_ref().expect("there is one")
    }

    /// Waits for a status, the latest one included.
    async fn status(&self, is_it: impl Fn(&Status) -> bool) -> Status {
        let mut receiver = self.supervisor().status();
        let wanted = receiver.wait_for(|status| status.as_ref().is_some_and(&is_it));
        let found = timeout(PATIENCE, wanted).await.expect("no such status");
        found.unwrap().clone().expect("it was looked at")
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        let status = self.supervisor.as_ref().map(Supervisor::status);
        self.supervisor = None;
        if let Some(status) = status.and_then(|status| status.borrow().clone()) {
            // It may have ended already.
            let _gone = kill(pid(&status), Signal::SIGKILL);
        }
    }
}

fn pid(status: &Status) -> Pid {
    Pid::from_raw(status.pid.cast_signed())
}

fn names(status: &Status) -> Vec<&str> {
    status
        .routers
        .iter()
        .map(|router| router.group.as_str())
        .collect()
}

async fn is_gone(path: &Path) {
    let gone = async {
        while path.exists() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(PATIENCE, gone).await.expect("the file stays");
}

#[tokio::test]
async fn a_process_that_dies_is_started_again_and_knows_its_groups() {
    let stage = Stage::new(&[group("web", 1)]);
    let first = stage.status(|status| !status.routers.is_empty()).await;
    assert_eq!(names(&first), ["web"]);
    assert_eq!(first.routers[0].state, State::Initialize);
    let in_fault = |status: &Status| {
        let routers = status.routers.iter();
        routers
            .clone()
            .any(|router| router.troubles == ["there is no interface nowhere0"])
    };
    stage.status(in_fault).await;
    kill(pid(&first), Signal::SIGKILL).unwrap();
    let second = stage
        .status(|status| status.pid != first.pid && in_fault(status))
        .await;
    assert_eq!(names(&second), ["web"]);
    assert_eq!(second.version, first.version);
}

#[tokio::test]
async fn groups_come_and_go_and_without_any_there_is_no_process() {
    let stage = Stage::new(&[group("web", 1)]);
    let first = stage.status(|status| names(status) == ["web"]).await;
    let both = [group("web", 1), group("db", 2)];
    stage.configuration.send_replace(Some(configuration(&both)));
    let second = stage.status(|status| names(status) == ["web", "db"]).await;
    assert_eq!(first.pid, second.pid);
    // One that makes no sense is refused as a whole: the third is never seen.
    let nonsense = [group("web", 1), group("web", 3)];
    stage
        .configuration
        .send_replace(Some(configuration(&nonsense)));
    stage
        .configuration
        .send_replace(Some(configuration(&both[1..])));
    stage.status(|status| names(status) == ["db"]).await;
    stage.configuration.send_replace(Some(configuration(&[])));
    is_gone(&vrrp_socket(&stage.lbd_socket())).await;
    let error = stage.supervisor().failover("db").await.unwrap_err();
    assert!(error.to_string().contains("no VRRP group"), "{error}");
    stage.configuration.send_replace(Some(configuration(&both)));
    let third = stage.status(|status| names(status) == ["web", "db"]).await;
    assert_ne!(third.pid, second.pid);
}

#[tokio::test]
async fn the_process_survives_its_supervisor_and_ends_on_demand() {
    let mut stage = Stage::new(&[group("web", 1)]);
    let first = stage.status(|status| names(status) == ["web"]).await;
    stage.supervisor = None;
    stage.start();
    let second = stage.status(|status| names(status) == ["web"]).await;
    assert_eq!(first.pid, second.pid);
    stage.supervisor.take().expect("there is one").stop().await;
    let left: Vec<_> = std::fs::read_dir(stage.directory.path()).unwrap().collect();
    assert!(left.is_empty(), "{left:?}");
}

#[tokio::test]
async fn a_hand_over_that_cannot_be_is_refused_with_the_reason() {
    let stage = Stage::new(&[group("web", 1)]);
    stage.status(|status| names(status) == ["web"]).await;
    let error = stage.supervisor().failover("mail").await.unwrap_err();
    assert_eq!(
        error,
        FailoverError::Refused("there is no group mail".to_owned())
    );
    let error = stage.supervisor().failover("web").await.unwrap_err();
    assert!(error.to_string().contains("not Active"), "{error}");
}

#[tokio::test]
async fn nobody_waits_for_one_that_cannot_be_started_and_it_is_when_it_can_be() {
    let elsewhere = tempfile::tempdir().unwrap();
    let program = elsewhere.path().join("lbd-vrrp");
    let stage = Stage::with(program.clone(), &[group("web", 1)]);
    let asked = timeout(PATIENCE, stage.supervisor().failover("web"));
    let error = asked.await.expect("no answer").unwrap_err();
    assert!(matches!(error, FailoverError::Absent(_)), "{error}");
    assert!(error.to_string().contains("cannot be started"), "{error}");
    assert!(stage.supervisor().status().borrow().is_none());
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_lbd-vrrp"), &program).unwrap();
    let status = stage.status(|status| names(status) == ["web"]).await;
    // Its program is not there any more, and it is.
    std::fs::remove_file(&program).unwrap();
    kill(pid(&status), Signal::SIGKILL).unwrap();
    let mut known = stage.supervisor().status();
    let gone = timeout(PATIENCE, known.wait_for(Option::is_none));
    gone.await.expect("its last words stay").unwrap();
}
