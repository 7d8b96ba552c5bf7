//! Changes that the API makes, one line of the log each.

use std::fmt;
use std::net::SocketAddr;

use tracing::info;

use crate::engine::{EngineError, EngineHandle, Outcome};
use crate::model::{AdminState, Backend, Change, Health, Keyword, Service, Urgency};

/// Has the engine make a change, and logs it when it is made. Both happen in a task of their own: a
/// client that hangs up does not keep a change out of the log.
pub(super) async fn change(engine: &EngineHandle, change: Change, told: Told) -> Outcome {
    let engine = engine.clone();
    let task = tokio::spawn(async move {
        let warnings = engine.change(change).await?;
        info!("{told}");
        Ok(warnings)
    });
    task.await
        .unwrap_or_else(|error| Err(EngineError::Failed(error.into())))
}

/// What is told of a change. The words are those of a reload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Told {
    service: String,
    backend: Option<String>,
    event: String,
}

impl Told {
    pub(super) fn service_added(service: &Service) -> Self {
        let endpoint = SocketAddr::new(service.vip, service.port);
        let words = [
            service.protocol.word(),
            service.scheduler.word(),
            service.forward.word(),
        ];
        Self {
            service: service.name.clone(),
            backend: None,
            event: format!("added: {endpoint} {}", words.join(" ")),
        }
    }

    pub(super) fn service_removed(service: &str) -> Self {
        Self {
            service: service.to_owned(),
            backend: None,
            event: "removed".to_owned(),
        }
    }

    pub(super) fn backend_added(service: &str, backend: &Backend) -> Self {
        let Backend {
            address,
            port,
            weight,
            ..
        } = backend;
        let event = format!("added: {address} port {port} weight {weight}");
        Self::of_backend(service, &backend.name, event)
    }

    pub(super) fn backend_weighted(service: &str, before: &Backend, weight: u32) -> Self {
        let event = format!("weight {} -> {weight}", before.weight);
        Self::of_backend(service, &before.name, event)
    }

    pub(super) fn backend_admin(
        service: &str,
        before: &Backend,
        admin: AdminState,
        urgency: Urgency,
    ) -> Self {
        let haste = match urgency {
            Urgency::Planned => "",
            Urgency::Immediate => " at once",
        };
        let event = format!("{} -> {}{haste}", before.admin.word(), admin.word());
        Self::of_backend(service, &before.name, event)
    }

    pub(super) fn backend_health(service: &str, before: &Backend, health: Health) -> Self {
        let event = format!("health {} -> {}", before.health.word(), health.word());
        Self::of_backend(service, &before.name, event)
    }

    pub(super) fn backend_removed(service: &str, backend: &str) -> Self {
        Self::of_backend(service, backend, "removed".to_owned())
    }

    fn of_backend(service: &str, backend: &str, event: String) -> Self {
        Self {
            service: service.to_owned(),
            backend: Some(backend.to_owned()),
            event,
        }
    }
}

impl fmt::Display for Told {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "service `{}`", self.service)?;
        if let Some(backend) = &self.backend {
            write!(f, ", backend `{backend}`")?;
        }
        write!(f, " {}", self.event)
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::{Arc, Mutex, PoisonError};

    use super::*;
    use crate::config::{Overrides, parse};
    use crate::engine::Request;

    fn web() -> Service {
        let text = "[[service]]\nname = \"web\"\nvip = \"2001:db8::10\"\nport = 80\n\
                    [[service.backend]]\nname = \"web1\"\naddress = \"2001:db8::11\"\n";
        let overrides = Overrides {
            interfaces: vec![],
            node: "lb1".to_owned(),
        };
        let mut model = parse("lbd.toml", text, &overrides).unwrap().model;
        model.services.remove("web").unwrap()
    }

    #[test]
    fn every_change_is_told_with_what_it_changes() {
        let web = web();
        let web1 = web.backend("web1").unwrap();
        let told = [
            Told::service_added(&web),
            Told::service_removed("web"),
            Told::backend_added("web", web1),
            Told::backend_weighted("web", web1, 7),
            Told::backend_admin("web", web1, AdminState::Drain, Urgency::Immediate),
            Told::backend_admin("web", web1, AdminState::Maint, Urgency::Planned),
            Told::backend_health("web", web1, Health::Down),
            Told::backend_removed("web", "web1"),
        ];
        assert_eq!(
            told.map(|told| told.to_string()),
            [
                "service `web` added: [2001:db8::10]:80 tcp maglev dsr",
                "service `web` removed",
                "service `web`, backend `web1` added: 2001:db8::11 port 80 weight 100",
                "service `web`, backend `web1` weight 100 -> 7",
                "service `web`, backend `web1` ready -> drain at once",
                "service `web`, backend `web1` ready -> maint",
                "service `web`, backend `web1` health unknown -> down",
                "service `web`, backend `web1` removed",
            ]
        );
    }

    /// What was logged.
    #[derive(Clone, Default)]
    struct Log(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Log {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let mut log = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            log.write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[tokio::test]
    async fn what_is_made_is_logged_once_and_what_is_refused_is_not() {
        let log = Log::default();
        let writer = log.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_writer(move || writer.clone())
            .finish();
        let _guard = tracing::subscriber::set_default(subscriber);
        let (engine, mut requests) = EngineHandle::new();
        let answers = tokio::spawn(async move {
            for outcome in [Ok(vec![]), Err(EngineError::Stopped)] {
                match requests.recv().await {
                    Some(Request::Change(_, reply)) => reply.send(outcome).unwrap(),
                    other => panic!("{other:?}"),
                }
            }
        });
        for service in ["made", "refused"] {
            let told = Told::service_removed(service);
            let removal = Change::RemoveService {
                service: service.to_owned(),
            };
            let outcome = change(&engine, removal, told).await;
            assert_eq!(outcome.is_ok(), service == "made");
        }
        answers.await.unwrap();
        let bytes = log.0.lock().unwrap().clone();
        let text = String::from_utf8(bytes).unwrap();
        assert_eq!(text.lines().count(), 1, "{text}");
        assert!(text.contains("INFO") && text.contains("service `made` removed"));
    }
}
