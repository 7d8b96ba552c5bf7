//! Services of lbd's configuration file.

use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use crate::topology::Topology;

/// A service as text for lbd's configuration file.
#[derive(Clone, Debug)]
pub struct ServiceText {
    name: String,
    vip: IpAddr,
    port: u16,
    protocol: &'static str,
    scheduler: &'static str,
    forward: &'static str,
    idle_timeout: Option<Duration>,
    /// Other keys, with their values.
    keys: Vec<(&'static str, String)>,
    /// The keys of each health check.
    checks: Vec<String>,
    backends: Vec<BackendText>,
}

#[derive(Clone, Debug)]
struct BackendText {
    name: String,
    address: IpAddr,
    port: Option<u16>,
    weight: u32,
    backup: u8,
    /// The keys of each health check of its own.
    checks: Vec<String>,
}

/// lbd's configuration for `net` with these services.
pub fn config(net: &Topology, services: &[ServiceText]) -> String {
    services.iter().fold(net.node_config(), |text, service| {
        text + &service.to_string()
    })
}

/// Weight of a backend unless it is said.
const WEIGHT: u32 = 100;

impl ServiceText {
    /// TCP on port 80, Maglev, without backends; forwarding as `net` is made for.
    pub fn new(net: &Topology, name: &str, vip: IpAddr) -> Self {
        Self {
            name: name.to_owned(),
            vip,
            port: 80,
            protocol: "tcp",
            scheduler: "maglev",
            forward: net.forward_word(),
            idle_timeout: None,
            keys: Vec::new(),
            checks: Vec::new(),
            backends: Vec::new(),
        }
    }

    /// Another port; 0 is every port.
    #[must_use]
    pub fn port(mut self, port: u16) -> Self {
        self.port = port;
        self
    }

    /// UDP on `port`.
    #[must_use]
    pub fn udp(mut self, port: u16) -> Self {
        self.protocol = "udp";
        self.port(port)
    }

    /// `maglev` or `round-robin`.
    #[must_use]
    pub fn scheduler(mut self, scheduler: &'static str) -> Self {
        self.scheduler = scheduler;
        self
    }

    /// Another idle time-out than the default, in whole seconds.
    #[must_use]
    pub fn idle_timeout(mut self, timeout: Duration) -> Self {
        self.idle_timeout = Some(timeout);
        self
    }

    /// Any key whose value is a string.
    #[must_use]
    pub fn key(mut self, key: &'static str, value: &'static str) -> Self {
        self.keys.push((key, format!("\"{value}\"")));
        self
    }

    /// Any key whose value is a number.
    #[must_use]
    pub fn number(mut self, key: &'static str, value: u32) -> Self {
        self.keys.push((key, value.to_string()));
        self
    }

    /// A health check of every backend: the lines of its table.
    #[must_use]
    pub fn check(mut self, keys: &str) -> Self {
        self.checks.push(keys.to_owned());
        self
    }

    /// Backends of `net` by name, with their weights.
    #[must_use]
    pub fn weights(mut self, net: &Topology, weights: &[(&str, u32)]) -> Self {
        for (name, weight) in weights {
            let backend = net.backends.iter().find(|backend| backend.name == *name);
            let backend = backend.unwrap_or_else(|| panic!("the network has no {name}"));
            self.backends.push(BackendText {
                name: backend.name.clone(),
                address: backend.address_like(self.vip),
                port: None,
                weight: *weight,
                backup: 0,
                checks: Vec::new(),
            });
        }
        self
    }

    /// Puts one of the backends into a backup group.
    #[must_use]
    pub fn backup(mut self, name: &str, group: u8) -> Self {
        let mut backends = self.backends.iter_mut();
        let backend = backends.find(|backend| backend.name == name);
        let backend = backend.unwrap_or_else(|| panic!("the service has no {name}"));
        backend.backup = group;
        self
    }

    /// A health check of one of the backends, in place of the service's: the lines of its table.
    #[must_use]
    pub fn backend_check(mut self, name: &str, keys: &str) -> Self {
        let mut backends = self.backends.iter_mut();
        let backend = backends.find(|backend| backend.name == name);
        let backend = backend.unwrap_or_else(|| panic!("the service has no {name}"));
        backend.checks.push(keys.to_owned());
        self
    }

    /// Backends of `net` by name, equal.
    #[must_use]
    pub fn backends(self, net: &Topology, names: &[&str]) -> Self {
        let equal: Vec<(&str, u32)> = names.iter().map(|name| (*name, WEIGHT)).collect();
        self.weights(net, &equal)
    }

    /// The backends' port, where it is not the service's.
    #[must_use]
    pub fn backend_port(mut self, port: u16) -> Self {
        for backend in &mut self.backends {
            backend.port = Some(port);
        }
        self
    }
}

impl fmt::Display for ServiceText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            name,
            vip,
            port,
            protocol,
            scheduler,
            forward,
            idle_timeout,
            keys,
            checks,
            backends,
        } = self;
        writeln!(
            f,
            "[[service]]\nname = \"{name}\"\nvip = \"{vip}\"\nport = {port}\n\
             protocol = \"{protocol}\"\nscheduler = \"{scheduler}\"\nforward = \"{forward}\""
        )?;
        if let Some(timeout) = idle_timeout {
            writeln!(f, "idle_timeout = \"{}s\"", timeout.as_secs())?;
        }
        for (key, value) in keys {
            writeln!(f, "{key} = {value}")?;
        }
        for check in checks {
            writeln!(f, "[[service.check]]\n{check}")?;
        }
        for backend in backends {
            let (name, address, weight) = (&backend.name, backend.address, backend.weight);
            writeln!(
                f,
                "[[service.backend]]\nname = \"{name}\"\naddress = \"{address}\"\nweight = {weight}"
            )?;
            if backend.backup > 0 {
                writeln!(f, "backup = {}", backend.backup)?;
            }
            if let Some(port) = backend.port {
                writeln!(f, "port = {port}")?;
            }
            for check in &backend.checks {
                writeln!(f, "[[service.backend.check]]\n{check}")?;
            }
        }
        Ok(())
    }
}
