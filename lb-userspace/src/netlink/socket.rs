//! Requests to the kernel over rtnetlink.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use anyhow::{Context, anyhow};
use futures::TryStreamExt;
use netlink_packet_route::AddressFamily;
use netlink_packet_route::address::{
    AddressAttribute, AddressFlags, AddressHeaderFlags, AddressMessage, CacheInfo,
};
use netlink_packet_route::neighbour::{NeighbourFlags, NeighbourState};
use netlink_packet_route::route::RouteMessage;
use rtnetlink::{AddressMessageBuilder, Handle, RouteMessageBuilder};
use tokio::task::AbortHandle;

use super::next_hop::RouteAnswer;
use super::parse;
use super::view::{LinkHost, View, host_prefix_len};

/// `INFINITY_LIFE_TIME` (`include/net/addrconf.h`). Unit: seconds.
const LIFETIME_INFINITE_S: u32 = u32::MAX;

/// A connection to the kernel's routing tables, in the network namespace of the thread that opened
/// it.
pub struct Netlink {
    handle: Handle,
    connection: AbortHandle,
}

impl Drop for Netlink {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

impl Netlink {
    /// Opens a connection. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// If the kernel gives no socket.
    pub fn open() -> anyhow::Result<Self> {
        let (connection, handle, _no_messages) =
            rtnetlink::new_connection().context("cannot open a netlink socket")?;
        Ok(Self {
            handle,
            connection: tokio::spawn(connection).abort_handle(),
        })
    }

    /// Reads links and addresses.
    ///
    /// # Errors
    /// If one of the tables cannot be read; `view` is as before then.
    pub async fn read_links(&self, view: &mut View) -> anyhow::Result<()> {
        let links = self.handle.link().get().execute();
        let links: Vec<_> = links.try_collect().await.context("cannot read the links")?;
        let addresses = self.handle.address().get().execute();
        let addresses: Vec<_> = addresses
            .try_collect()
            .await
            .context("cannot read the addresses")?;
        view.links = links.iter().filter_map(parse::link).collect();
        view.addresses = addresses.iter().filter_map(parse::address).collect();
        Ok(())
    }

    /// Reads the main routing table of both families.
    ///
    /// # Errors
    /// If it cannot be read; `view` is as before then.
    pub async fn read_routes(&self, view: &mut View) -> anyhow::Result<()> {
        let mut routes = Vec::new();
        for family in [AddressFamily::Inet, AddressFamily::Inet6] {
            routes.extend(self.routes(family).await?);
        }
        view.routes = routes.iter().filter_map(parse::route).collect();
        Ok(())
    }

    async fn routes(&self, family: AddressFamily) -> anyhow::Result<Vec<RouteMessage>> {
        let mut request = RouteMessage::default();
        request.header.address_family = family;
        let routes = self.handle.route().get(request).execute();
        routes.try_collect().await.context("cannot read the routes")
    }

    /// Reads the neighbour tables of both families.
    ///
    /// # Errors
    /// If they cannot be read; `view` is as before then.
    pub async fn read_neighbours(&self, view: &mut View) -> anyhow::Result<()> {
        let neighbours = self.handle.neighbours().get().execute();
        let neighbours: Vec<_> = neighbours
            .try_collect()
            .await
            .context("cannot read the neighbours")?;
        view.neighbours = neighbours.iter().filter_map(parse::neighbour).collect();
        Ok(())
    }

    /// Asks the kernel how `destination` is reached.
    ///
    /// # Errors
    /// If the kernel does not answer the question; "there is no way" is an answer.
    pub async fn look_up(&self, destination: IpAddr) -> anyhow::Result<RouteAnswer> {
        let request = match destination {
            IpAddr::V4(ip) => RouteMessageBuilder::<Ipv4Addr>::new()
                .destination_prefix(ip, 32)
                .build(),
            IpAddr::V6(ip) => RouteMessageBuilder::<Ipv6Addr>::new()
                .destination_prefix(ip, 128)
                .build(),
        };
        let mut answers = Box::pin(self.handle.route().get(request).execute());
        match answers.try_next().await.map_err(explain) {
            Ok(Some(message)) => Ok(parse::answer(destination, &message)),
            Ok(None) => Ok(Err(format!("no route to {destination}"))),
            Err(error) if is_no_route(&error) => {
                Ok(Err(format!("no route to {destination}: {error}")))
            }
            Err(error) => Err(error).with_context(|| format!("cannot look up {destination}")),
        }
    }

    /// Has the kernel resolve a host, or confirm what it knows of it. Returns at once; the answer
    /// comes as a change of the neighbour table.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub async fn resolve(&self, host: LinkHost) -> anyhow::Result<()> {
        let (ifindex, address) = host;
        // NTF_USE: "somebody wants to send there". Without it this would write an entry.
        self.handle
            .neighbours()
            .add(ifindex, address)
            .state(NeighbourState::None)
            .flags(NeighbourFlags::Use)
            .replace()
            .execute()
            .await
            .map_err(|error| anyhow!("cannot resolve {address}: {}", explain(error)))
    }

    /// Adds a VIP. IPv6 without duplicate address detection: it would keep the address unusable
    /// for a second and, with the same VIP on a second balancer, for good. And deprecated, so that
    /// the node's own connections do not take it for their source.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub async fn add_vip(&self, ifindex: u32, vip: IpAddr) -> anyhow::Result<()> {
        let mut request = self
            .handle
            .address()
            .add(ifindex, vip, host_prefix_len(vip));
        *request.message_mut() = vip_message(ifindex, vip);
        request
            .execute()
            .await
            .map_err(|error| anyhow!("cannot add VIP {vip}: {}", explain(error)))
    }

    /// Removes a VIP; fine if it is not there.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub async fn remove_vip(&self, ifindex: u32, vip: IpAddr) -> anyhow::Result<()> {
        let request = self.handle.address().del(vip_message(ifindex, vip));
        match request.execute().await.map_err(explain) {
            Err(error) if is_absent(&error) => Ok(()),
            other => other.with_context(|| format!("cannot remove VIP {vip}")),
        }
    }
}

pub(super) fn vip_message(ifindex: u32, vip: IpAddr) -> AddressMessage {
    let prefix_len = host_prefix_len(vip);
    match vip {
        IpAddr::V4(vip) => AddressMessageBuilder::<Ipv4Addr>::new()
            .index(ifindex)
            .address(vip, prefix_len)
            .build(),
        IpAddr::V6(vip) => {
            let mut message = AddressMessageBuilder::<Ipv6Addr>::new()
                .index(ifindex)
                .address(vip, prefix_len)
                .build();
            message.header.flags = AddressHeaderFlags::Nodad;
            let flags = AddressFlags::Nodad | AddressFlags::Noprefixroute;
            message.attributes.push(AddressAttribute::Flags(flags));
            message.attributes.push(deprecated());
            message
        }
    }
}

/// Valid for ever and preferred never: RFC 6724 section 5 rule 3 then chooses any other address as
/// the source of the node's own connections; without it, rule 8 chooses the VIP for all that is near
/// it.
fn deprecated() -> AddressAttribute {
    let mut lifetimes = CacheInfo::default();
    lifetimes.ifa_valid = LIFETIME_INFINITE_S;
    lifetimes.ifa_preferred = 0;
    AddressAttribute::CacheInfo(lifetimes)
}

/// The error that the kernel gave, where it gave one.
fn explain(error: rtnetlink::Error) -> io::Error {
    match error {
        rtnetlink::Error::NetlinkError(message) => message.to_io(),
        other => io::Error::other(other),
    }
}

/// What a route of type unreachable, prohibit or blackhole answers with, or a table without a route.
fn is_no_route(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::ENETUNREACH | libc::EHOSTUNREACH | libc::EACCES | libc::EINVAL)
    )
}

pub(super) fn is_absent(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::EADDRNOTAVAIL | libc::ENODEV)
    )
}
