//! What the operator should know about a change that was accepted, and what is refused because of the
//! node that it is for.

use super::core::Engine;
use super::handle::EngineError;
use super::own_vips::OwnVips;
use crate::desired::way_to;
use crate::model::{Backend, ForwardMode, Kind, Model, ModelError, Problem, Section, Service};
use crate::netlink::next_hop::{Hop, ResolvedHop};
use crate::netlink::view::View;

impl Engine {
    /// About the change from `old` to the model in force.
    pub(super) fn warnings(&self, old: &Model) -> Vec<String> {
        let mut warnings = self.interfaces.differences(&self.model.interfaces);
        if self.model.limits != self.limits {
            warnings.push("`limits` take effect at the next start".to_owned());
        }
        for service in self.model.services.values() {
            let before = old.services.get(&service.name);
            if before.is_none_or(|before| before.vip != service.vip) {
                warnings.extend(self.vip_warning(service));
            }
            let newcomers = service.backends.values();
            let newcomers = newcomers.filter(|backend| is_new(backend, before));
            warnings.extend(newcomers.filter_map(|backend| self.hop_warning(service, backend)));
        }
        warnings
    }

    /// Refuses a service of every port on an address that the node itself is reached at.
    pub(super) fn refuse_taking_the_node(&self, old: &Model) -> Result<(), EngineError> {
        let services = self.model.services.values().enumerate();
        let view = self.surroundings.view();
        let taking = services
            .filter(|(_, service)| service.port == 0)
            .filter(|(_, service)| !old.services.contains_key(&service.name))
            .find_map(|(index, service)| {
                let interface = node_interface(service, view, &self.own_vips)?;
                Some((index, service, interface))
            });
        let Some((index, service, interface)) = taking else {
            return Ok(());
        };
        let message = format!(
            "VIP {} is the node's own address on {interface}, and with port 0 the service takes all \
             that comes to it, ssh included",
            service.vip
        );
        let problem = Problem::new(
            Kind::Conflict,
            Section::Service(index).key("vip"),
            format!("service `{}`", service.name),
            message,
        )
        .help("choose another VIP, or one port");
        Err(ModelError::Problems(vec![problem]).into())
    }

    fn vip_warning(&self, service: &Service) -> Option<String> {
        let interface = node_interface(service, self.surroundings.view(), &self.own_vips)?;
        Some(format!(
            "service `{}`: VIP {} is the node's own address on {interface}: what came to that port of \
             the node now goes to the backends",
            service.name, service.vip
        ))
    }

    fn hop_warning(&self, service: &Service, backend: &Backend) -> Option<String> {
        let hop = self.surroundings.network.hops.get(&backend.address);
        let attached = self.interfaces.in_order(&self.model.interfaces);
        let problem = hop_problem(service.forward, hop, &attached)?;
        let (service, backend) = (&service.name, &backend.name);
        Some(format!(
            "service `{service}`, backend `{backend}`: {problem}"
        ))
    }
}

fn is_new(backend: &Backend, before: Option<&Service>) -> bool {
    before.is_none_or(|before| {
        let mut others = before.backends.values();
        others.all(|other| other.address != backend.address)
    })
}

/// The interface whose own address the VIP is. A single address (/32, /128) may have been added for
/// the VIP by whoever manages VIPs.
fn node_interface(service: &Service, view: &View, own: &OwnVips) -> Option<String> {
    let is_ours = own.holder(service.vip, view).is_some();
    let mut addresses = view.addresses.iter();
    let local = addresses.find(|local| local.address == service.vip && !local.is_single())?;
    (!is_ours).then(|| view.link_name(local.ifindex))
}

fn hop_problem(
    forward: ForwardMode,
    hop: Option<&Hop>,
    attached: &[(String, u32)],
) -> Option<String> {
    let ResolvedHop {
        ifindex, interface, ..
    } = match way_to(forward, hop) {
        Ok(hop) => hop,
        Err(reason) => return Some(format!("no next hop: {reason}")),
    };
    if attached.iter().any(|(_, index)| index == ifindex) {
        return None;
    }
    Some(match forward {
        ForwardMode::Nat => format!(
            "NAT replies come in on {interface}, which is not an [[interface]]: clients get them \
             with the backend's address and reset the connection"
        ),
        ForwardMode::Dsr => format!(
            "it is reached through {interface}, which is not an [[interface]]: many drivers send \
             redirected frames only where XDP is attached"
        ),
    })
}

#[cfg(test)]
mod tests {
    use lb_common::abi::LinkRewrite;

    use super::super::own_vips::tests::{ip, own, view};
    use super::*;
    use crate::netlink::next_hop::Freshness;

    fn through_eth1() -> Hop {
        let resolved = ResolvedHop {
            ifindex: 3,
            interface: "eth1".to_owned(),
            link: LinkRewrite::new([2; 6], [4; 6]),
            freshness: Freshness::Current,
        };
        Hop {
            through_gateway: false,
            resolved: Ok(resolved),
        }
    }

    #[test]
    fn a_backend_beyond_an_interface_without_the_program_is_told() {
        let hop = through_eth1();
        let attached = |names: &[(&str, u32)]| {
            let named = names
                .iter()
                .map(|(name, index)| ((*name).to_owned(), *index));
            named.collect::<Vec<_>>()
        };
        let (one, both) = (
            attached(&[("eth0", 2)]),
            attached(&[("eth0", 2), ("eth1", 3)]),
        );
        for (forward, start) in [
            (
                ForwardMode::Nat,
                "NAT replies come in on eth1, which is not",
            ),
            (ForwardMode::Dsr, "it is reached through eth1, which is not"),
        ] {
            let problem = hop_problem(forward, Some(&hop), &one).unwrap();
            assert!(problem.starts_with(start), "{problem}");
            assert_eq!(hop_problem(forward, Some(&hop), &both), None);
        }
        let unknown = hop_problem(ForwardMode::Nat, None, &both).unwrap();
        assert_eq!(unknown, "no next hop: not looked up yet");
    }

    #[test]
    fn the_nodes_own_address_is_told_from_a_vip() {
        let service = |vip: &str| Service::new("web", ip(vip), 0);
        let view = view(&[
            (2, "10.0.0.1", 24),
            (2, "203.0.113.10", 32),
            (3, "203.0.113.11", 32),
        ]);
        let own = own(&[("203.0.113.10", "eth0", 2)]);
        let interface = |vip| node_interface(&service(vip), &view, &own);
        assert_eq!(interface("10.0.0.1"), Some("eth0".to_owned()));
        for vip in ["203.0.113.10", "203.0.113.11", "203.0.113.12"] {
            assert_eq!(interface(vip), None, "{vip}");
        }
    }
}
