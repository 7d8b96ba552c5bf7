//! SIGHUP: the file is read again.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use tracing::{error, info, warn};

use crate::config::{self, Overrides};
use crate::engine::{EngineError, EngineHandle};
use crate::events::unix_ms;
use crate::model::diff::{differences, dropped, group_differences, takes_restart};
use crate::model::{Hooks, Model, Service};
use crate::tally::{Counted, Tally};

/// Where the model came from, and what it was.
#[derive(Debug)]
pub(super) struct Origin {
    pub(super) file: Option<PathBuf>,
    pub(super) overrides: Overrides,
    /// As the file said when it was last read.
    pub(super) model: Model,
}

impl Origin {
    /// Reads the file again and hands the new model to the engine. On any error the old model stays
    /// in force; either way the log tells what happened, and it is counted.
    pub(super) async fn reload(&mut self, engine: &EngineHandle, tally: &Tally) {
        let Some(file) = self.file.clone() else {
            warn!("SIGHUP: there is no config file to read; lbd was started without --config");
            return;
        };
        match self.try_reload(&file, engine).await {
            Ok(()) => {
                info!(file = %file.display(), "reloaded");
                tally.note_loaded(unix_ms());
                tally.add(Counted::ReloadSucceeded, 1);
            }
            Err(reason) => {
                error!("reload refused: {reason}");
                tally.note_refused();
                tally.add(Counted::ReloadFailed, 1);
            }
        }
    }

    /// # Errors
    /// Why the old model stays in force.
    async fn try_reload(&mut self, file: &Path, engine: &EngineHandle) -> Result<(), String> {
        let loaded = match config::load(Some(file), &self.overrides) {
            Ok(loaded) => loaded,
            Err(report) => {
                report.lines().for_each(|line| error!("{line}"));
                return Err("the services stay as they are".to_owned());
            }
        };
        loaded.warnings.lines().for_each(|line| warn!("{line}"));
        if let Some(key) = takes_restart(&self.model, &loaded.model).first() {
            return Err(format!("{key} changed, which takes a restart of lbd"));
        }
        let replaced = self.replace(loaded.model, engine).await;
        replaced.map_err(|error| format!("{error}; the services stay as they are"))
    }

    async fn replace(&mut self, new: Model, engine: &EngineHandle) -> Result<(), EngineError> {
        let current = current_services(engine).await?;
        let warnings = engine.replace(new.clone()).await?;
        for change in dropped(&self.model.services, &current, &new.services) {
            warn!("dropped, because the file does not have it: {change} (made with lbctl)");
        }
        for warning in warnings {
            warn!("{warning}");
        }
        for change in differences(&current, &new.services) {
            info!("reload: {change}");
        }
        for change in group_differences(&self.model.vrrp, &new.vrrp) {
            info!("reload: {change}");
        }
        if self.model.hooks != new.hooks {
            info!("reload: hooks.on_change {}", words(&new.hooks));
        }
        self.model = new;
        Ok(())
    }
}

/// The program alone: an argument may be a secret.
fn words(hooks: &Hooks) -> String {
    match &hooks.on_change {
        Some(hook) => format!("is {}, for {} s", hook.program(), hook.timeout_s),
        None => "is none".to_owned(),
    }
}

async fn current_services(engine: &EngineHandle) -> Result<BTreeMap<String, Service>, EngineError> {
    let snapshot = engine.snapshot().await?;
    let services = snapshot.services.into_iter().map(|state| state.service);
    Ok(services
        .map(|service| (service.name.clone(), service))
        .collect())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::sync::mpsc;

    use super::*;
    use crate::config::parse;
    use crate::engine::Request;
    use crate::engine::snapshot::{DatapathOrigin, DatapathState, ServiceState, Snapshot};
    use crate::model::cluster::Cluster;

    fn model(text: &str) -> Model {
        let overrides = Overrides {
            interfaces: vec!["eth0".to_owned()],
            node: "lb1".to_owned(),
        };
        parse("lbd.toml", text, &overrides).unwrap().model
    }

    #[test]
    fn what_the_datapath_was_loaded_with_takes_a_restart() {
        let restart = |text| takes_restart(&model(""), &model(text)).first().copied();
        assert_eq!(
            restart("[[interface]]\nname = \"eth1\"\n"),
            Some("[[interface]]")
        );
        assert_eq!(restart("[limits]\nflows = 2048\n"), Some("[limits]"));
        assert_eq!(
            restart("[node]\nmanage_vips = false\n"),
            Some("node.manage_vips")
        );
        let web = "[[service]]\nname = \"web\"\nvip = \"203.0.113.10\"\nport = 80\n";
        let named = format!("[node]\nname = \"lb2\"\n{web}");
        assert_eq!(restart(&named), None);
        let group =
            "[[vrrp]]\nname = \"web\"\ninterface = \"eth0\"\nvrid = 51\nvips = \"203.0.113.10\"\n";
        assert_eq!(restart(group), None);
        let mut one_of_two = model("");
        one_of_two.cluster = Some(Cluster {
            listen: "10.0.9.1:7946".parse().unwrap(),
            secret_file: "/etc/lbd/cluster.key".into(),
            heartbeat_ms: 100,
            patience_s: 120,
            peers: BTreeMap::new(),
        });
        assert_eq!(takes_restart(&model(""), &one_of_two), ["[cluster]"]);
        let mut renamed = one_of_two.clone();
        renamed.node = "lb2".to_owned();
        assert_eq!(takes_restart(&one_of_two, &renamed), ["node.name"]);
    }

    const WEB: &str = "[[service]]\nname = \"web\"\nvip = \"203.0.113.10\"\nport = 80\n";

    /// An engine that holds `model`, takes what it is given unless it is to `refuse`, and tells in
    /// the end what it holds.
    async fn engine(
        mut model: Model,
        mut requests: mpsc::Receiver<Request>,
        refuse: Option<&'static str>,
    ) -> Model {
        while let Some(request) = requests.recv().await {
            match request {
                Request::Snapshot(reply) => reply.send(snapshot(&model)).unwrap(),
                Request::Replace(new, reply) => {
                    let outcome = match refuse {
                        Some(reason) => Err(EngineError::Failed(anyhow::anyhow!(reason))),
                        None => {
                            model = *new;
                            Ok(vec![])
                        }
                    };
                    reply.send(outcome).unwrap();
                }
                other => panic!("a reload does not ask {other:?}"),
            }
        }
        model
    }

    fn snapshot(model: &Model) -> Snapshot {
        let services = model.services.values().map(|service| ServiceState {
            service: service.clone(),
            id: 1,
            ring_len: 0,
            phases: None,
            vip_interface: None,
            backends: vec![],
            leaving: vec![],
            drops: vec![],
        });
        Snapshot {
            node: model.node.clone(),
            uptime: Duration::ZERO,
            config_file: None,
            datapath: DatapathState {
                pinned: PathBuf::new(),
                abi_version: 1,
                origin: DatapathOrigin::Fresh,
                heartbeat_age: Duration::ZERO,
            },
            interfaces: vec![],
            cluster: model.cluster.clone(),
            vrrp: model.vrrp.clone(),
            services: services.collect(),
            maps: vec![],
            rings_written_count: 0,
            passed_packets: 0,
            drops: vec![],
        }
    }

    /// What engine and origin hold after the file, once empty, became `text`.
    async fn after_reload(file: &Path, text: &str, refuse: Option<&'static str>) -> (Model, Model) {
        std::fs::write(file, text).unwrap();
        let (handle, requests) = EngineHandle::new();
        let task = tokio::spawn(engine(model(""), requests, refuse));
        let mut origin = Origin {
            file: Some(file.to_owned()),
            overrides: Overrides {
                interfaces: vec!["eth0".to_owned()],
                node: "lb1".to_owned(),
            },
            model: model(""),
        };
        let tally = Tally::default();
        origin.reload(&handle, &tally).await;
        drop(handle);
        let is_taken = origin.model != model("");
        assert_eq!(tally.get(Counted::ReloadSucceeded), u64::from(is_taken));
        assert_eq!(tally.get(Counted::ReloadFailed), u64::from(!is_taken));
        assert_eq!(tally.is_last_load_in_force(), is_taken);
        (task.await.unwrap(), origin.model)
    }

    #[tokio::test]
    async fn a_good_file_replaces_the_model() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("lbd.toml");
        let (in_force, remembered) = after_reload(&file, WEB, None).await;
        assert_eq!((&in_force, &remembered), (&model(WEB), &model(WEB)));
    }

    #[tokio::test]
    async fn a_bad_file_a_restart_or_a_refusal_leave_the_model_as_it_was() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("lbd.toml");
        let bad = format!("{WEB}prot = 80\n");
        let restart = format!("[limits]\nflows = 2048\n{WEB}");
        for (text, refuse) in [(&*bad, None), (&restart, None), (WEB, Some("no room"))] {
            let (in_force, remembered) = after_reload(&file, text, refuse).await;
            assert_eq!((&in_force, &remembered), (&model(""), &model("")), "{text}");
        }
    }
}
