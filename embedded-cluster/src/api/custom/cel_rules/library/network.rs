//! IP addresses and CIDR blocks (`library.IP`, `library.CIDR`).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use cel::common::types::{CelBool, CelInt, CelString, Type};
use cel::common::value::{StaticVal, Val};
use cel::{DeclarationError, Env, ExecutionError};
use ipnet::IpNet;

use super::{failed, opaque};

#[derive(Clone, Debug, PartialEq)]
struct Ip(IpAddr);

#[derive(Clone, Debug, PartialEq)]
struct Cidr(IpNet);

opaque!(Ip, "net.IP");
opaque!(Cidr, "net.CIDR");

pub(super) fn declare(env: &mut Env) -> Result<(), DeclarationError> {
    cel::add_overload!(env, fn ip: (CelString) -> Result<Ip>)?;
    cel::add_overload!(env, fn is_ip: (CelString) -> CelBool, name = "isIP")?;
    cel::add_overload!(env, fn is_canonical: (CelString) -> Result<CelBool>, name = "ip.isCanonical")?;
    cel::add_overload!(env, fn ip_text: (Ip) -> CelString, name = "string", id = "ip_to_string")?;
    cel::add_member_overload!(env, fn family: (Ip) -> CelInt)?;
    cel::add_member_overload!(env, fn is_unspecified: (Ip) -> CelBool)?;
    cel::add_member_overload!(env, fn is_loopback: (Ip) -> CelBool)?;
    cel::add_member_overload!(env, fn is_link_local_multicast: (Ip) -> CelBool)?;
    cel::add_member_overload!(env, fn is_link_local_unicast: (Ip) -> CelBool)?;
    cel::add_member_overload!(env, fn is_global_unicast: (Ip) -> CelBool)?;
    cel::add_overload!(env, fn cidr: (CelString) -> Result<Cidr>)?;
    cel::add_overload!(env, fn is_cidr: (CelString) -> CelBool, name = "isCIDR")?;
    cel::add_overload!(env, fn cidr_text: (Cidr) -> CelString, name = "string", id = "cidr_to_string")?;
    cel::add_member_overload!(env, fn contains_ip: (Cidr, Ip) -> CelBool, name = "containsIP")?;
    cel::add_member_overload!(env, fn contains_ip_text: (Cidr, CelString) -> Result<CelBool>, name = "containsIP")?;
    cel::add_member_overload!(env, fn contains_cidr: (Cidr, Cidr) -> CelBool, name = "containsCIDR")?;
    cel::add_member_overload!(env, fn contains_cidr_text: (Cidr, CelString) -> Result<CelBool>, name = "containsCIDR")?;
    cel::add_member_overload!(env, fn cidr_ip: (Cidr) -> Ip, name = "ip")?;
    cel::add_member_overload!(env, fn masked: (Cidr) -> Cidr)?;
    cel::add_member_overload!(env, fn prefix_length: (Cidr) -> CelInt)
}

/// IPv4 addresses in IPv6's clothes are refused, as Kubernetes does everywhere.
fn parse(text: &str) -> Result<Ip, ExecutionError> {
    let unreadable = || failed("ip", format!("IP Address '{text}' parse error during conversion from string: unable to parse IP"));
    let address: IpAddr = text.parse().map_err(|_| unreadable())?;
    match address {
        IpAddr::V6(mapped) if mapped.to_ipv4_mapped().is_some() => {
            Err(failed("ip", format!("IPv4-mapped IPv6 address \"{text}\" is not allowed")))
        }
        _ => Ok(Ip(address)),
    }
}

fn parse_cidr(text: &str) -> Result<Cidr, ExecutionError> {
    let unreadable = || failed("cidr", format!("network address parse error during conversion from string: invalid CIDR address: {text}"));
    let (address, _) = text.split_once('/').ok_or_else(unreadable)?;
    parse(address)?;
    text.parse().map(Cidr).map_err(|_| unreadable())
}

fn ip(text: &CelString<'_>) -> Result<Ip, ExecutionError> {
    parse(text.inner())
}

fn is_ip(text: &CelString<'_>) -> CelBool {
    parse(text.inner()).is_ok().into()
}

fn is_canonical(text: &CelString<'_>) -> Result<CelBool, ExecutionError> {
    Ok(CelBool::from(parse(text.inner())?.0.to_string() == text.inner()))
}

fn ip_text(ip: &Ip) -> CelString<'static> {
    CelString::from(ip.0.to_string())
}

fn family(ip: &Ip) -> CelInt {
    CelInt::from(if ip.0.is_ipv4() { 4 } else { 6 })
}

fn is_unspecified(ip: &Ip) -> CelBool {
    ip.0.is_unspecified().into()
}

fn is_loopback(ip: &Ip) -> CelBool {
    ip.0.is_loopback().into()
}

fn is_link_local_multicast(ip: &Ip) -> CelBool {
    CelBool::from(match ip.0 {
        IpAddr::V4(v4) => v4.octets()[..3] == [224, 0, 0],
        IpAddr::V6(v6) => v6.octets()[0] == 0xff && v6.octets()[1] & 0x0f == 2,
    })
}

fn is_link_local(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(v4) => v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    }
}

fn is_link_local_unicast(ip: &Ip) -> CelBool {
    is_link_local(ip.0).into()
}

/// Go's `netip.Addr.IsGlobalUnicast`: private ranges count.
fn is_global_unicast(ip: &Ip) -> CelBool {
    let is_broadcast = ip.0 == IpAddr::V4(Ipv4Addr::BROADCAST);
    let is_none = ip.0 == IpAddr::V6(Ipv6Addr::UNSPECIFIED) || ip.0.is_unspecified();
    CelBool::from(!is_broadcast && !is_none && !ip.0.is_loopback() && !ip.0.is_multicast() && !is_link_local(ip.0))
}

fn cidr(text: &CelString<'_>) -> Result<Cidr, ExecutionError> {
    parse_cidr(text.inner())
}

fn is_cidr(text: &CelString<'_>) -> CelBool {
    parse_cidr(text.inner()).is_ok().into()
}

fn cidr_text(cidr: &Cidr) -> CelString<'static> {
    CelString::from(cidr.0.to_string())
}

fn contains_ip(cidr: &Cidr, ip: &Ip) -> CelBool {
    cidr.0.contains(&ip.0).into()
}

fn contains_ip_text(cidr: &Cidr, text: &CelString<'_>) -> Result<CelBool, ExecutionError> {
    Ok(contains_ip(cidr, &parse(text.inner())?))
}

fn contains_cidr(cidr: &Cidr, other: &Cidr) -> CelBool {
    cidr.0.contains(&other.0.trunc()).into()
}

fn contains_cidr_text(cidr: &Cidr, text: &CelString<'_>) -> Result<CelBool, ExecutionError> {
    Ok(contains_cidr(cidr, &parse_cidr(text.inner())?))
}

fn cidr_ip(cidr: &Cidr) -> Ip {
    Ip(cidr.0.addr())
}

fn masked(cidr: &Cidr) -> Cidr {
    Cidr(cidr.0.trunc())
}

fn prefix_length(cidr: &Cidr) -> CelInt {
    CelInt::from(i64::from(cidr.0.prefix_len()))
}
