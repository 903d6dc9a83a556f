//! Where a request comes from, and by which scheme: the peer of its connection, or the client for whom trusted proxies passed it on.

use std::{
    net::{IpAddr, SocketAddr},
    str::FromStr,
    sync::Arc,
};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use poem::{
    Request,
    http::{HeaderMap, HeaderName, uri::Scheme},
};

/// Through which proxies a request came: each adds the address that it saw, at the end.
const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
/// By which scheme the client asked, if a proxy changed it.
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
/// The bits before the IPv4 address in `::ffff:a.b.c.d`.
const MAPPED_BITS: u8 = 96;

/// The IP address of a request's client, or `None` if the connection has none.
#[derive(Debug, Clone, Copy)]
pub struct Client(pub Option<IpAddr>);

impl Client {
    /// Of a request: that of its peer, or what trusted proxies say.
    #[must_use]
    pub fn of(req: &Request, proxies: &TrustedProxies) -> Self {
        Self(req.remote_addr().as_socket_addr().map(|peer| proxies.client(peer.ip(), req.headers())))
    }

    /// For the log and the audit table.
    #[must_use]
    pub fn name(self) -> String {
        self.0.map_or_else(|| "unknown".to_owned(), |address| address.to_string())
    }
}

/// A network, written `10.0.0.0/8`, or one address. IPv4 addresses that are written as IPv6 (`::ffff:10.0.0.0/104`) are IPv4.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Network(IpNet);

impl FromStr for Network {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let text = text.trim();
        let net = text.parse().or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
        let net = net.map_err(|_| "write networks such as 10.0.0.0/8 or 2001:db8::/32, or addresses, with commas between them")?;
        Ok(Self(canonical(net)))
    }
}

fn canonical(net: IpNet) -> IpNet {
    let plain = |net: Ipv6Net| {
        let length = net.prefix_len().checked_sub(MAPPED_BITS)?;
        Ipv4Net::new(net.addr().to_ipv4_mapped()?, length).ok()
    };
    match net {
        IpNet::V6(mapped) => plain(mapped).map_or(net, IpNet::V4),
        IpNet::V4(_) => net,
    }
}

/// The proxies whose word on a client's address counts.
#[derive(Debug, Clone, Default)]
pub struct TrustedProxies(Arc<[Network]>);

impl TrustedProxies {
    /// Those in these networks.
    #[must_use]
    pub fn new(networks: &[Network]) -> Self {
        Self(networks.into())
    }

    /// Whether this is the address of one.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.0.iter().any(|Network(net)| net.contains(&address))
    }

    /// The address of the client of a request that came over a connection from `peer`.
    ///
    /// Each trusted proxy is believed about the one before it, from the last one on. What is no address ends that: whoever wrote it may have
    /// written all that stands before it.
    #[must_use]
    pub fn client(&self, peer: IpAddr, headers: &HeaderMap) -> IpAddr {
        let mut client = peer.to_canonical();
        let lines = headers.get_all(FORWARDED_FOR).iter().rev();
        let entries = lines.flat_map(|line| line.as_bytes().rsplit(|byte| *byte == b','));
        // RFC 9110, 5.6.1: empty elements of a list do not count.
        for entry in entries.map(<[u8]>::trim_ascii).filter(|entry| !entry.is_empty()) {
            if !self.contains(client) {
                break;
            }
            let Some(before) = address(entry) else { break };
            client = before;
        }
        client
    }

    /// The scheme by which the client of a request asked: that of its connection to us or, as a trusted proxy says, of that to the first proxy.
    #[must_use]
    pub fn scheme(&self, req: &Request) -> &'static str {
        let peer = req.remote_addr().as_socket_addr().map(SocketAddr::ip);
        let told = peer.and_then(|peer| self.told_scheme(peer, req.headers()));
        told.unwrap_or(if *req.scheme() == Scheme::HTTPS { "https" } else { "http" })
    }

    fn told_scheme(&self, peer: IpAddr, headers: &HeaderMap) -> Option<&'static str> {
        let told = headers.get(FORWARDED_PROTO).filter(|_| self.contains(peer))?.to_str().ok()?;
        let first = told.split(',').next()?.trim();
        ["https", "http"].into_iter().find(|scheme| scheme.eq_ignore_ascii_case(first))
    }
}

/// Reads an address, to which some proxies add the port.
fn address(entry: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(entry).ok()?;
    let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
    let address = bare.parse().or_else(|_| text.parse().map(|address: SocketAddr| address.ip())).ok()?;
    Some(address.to_canonical())
}

#[cfg(test)]
mod tests {
    use poem::http::HeaderValue;

    use super::*;

    fn proxies(networks: &[&str]) -> TrustedProxies {
        TrustedProxies::new(&networks.iter().map(|text| text.parse().unwrap()).collect::<Vec<_>>())
    }

    fn client(networks: &[&str], peer: &str, lines: &[&[u8]]) -> String {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(FORWARDED_FOR, HeaderValue::from_bytes(line).unwrap());
        }
        proxies(networks).client(peer.parse().unwrap(), &headers).to_string()
    }

    #[test]
    fn only_a_trusted_peer_is_believed() {
        let lines: &[&[u8]] = &[b"1.2.3.4"];
        assert_eq!(client(&[], "127.0.0.1", lines), "127.0.0.1");
        assert_eq!(client(&["10.0.0.0/8"], "127.0.0.1", lines), "127.0.0.1");
        assert_eq!(client(&["127.0.0.0/8"], "127.0.0.1", lines), "1.2.3.4");
        assert_eq!(client(&["127.0.0.0/8"], "127.0.0.1", &[]), "127.0.0.1");
    }

    #[test]
    fn the_rightmost_address_that_is_no_proxys_is_the_clients_over_all_lines() {
        let networks = ["127.0.0.1", "10.0.0.0/8", "2001:db8::/32"];
        let client = |lines: &[&[u8]]| client(&networks, "127.0.0.1", lines);
        assert_eq!(client(&[b"6.6.6.6, 1.2.3.4, 10.1.1.1"]), "1.2.3.4");
        assert_eq!(client(&[b"6.6.6.6", b"1.2.3.4", b"10.1.1.1,2001:db8::7"]), "1.2.3.4");
        assert_eq!(client(&[b"10.2.2.2, 10.1.1.1"]), "10.2.2.2", "all are proxies: the first of them asks");
        assert_eq!(client(&[b" , 1.2.3.4 ,, 10.1.1.1\t,"]), "1.2.3.4");
        assert_eq!(client(&[b"1.2.3.4:5678, [2001:db8::1]:443, [2001:db8::2]"]), "1.2.3.4");
        assert_eq!(client(&[b"2a00::1, ::ffff:10.9.9.9"]), "2a00::1");
    }

    #[test]
    fn a_trusted_proxy_says_by_which_scheme_the_client_asked_the_first_proxy() {
        let told = |networks: &[&str], text: &'static str| {
            let headers = HeaderMap::from_iter([(FORWARDED_PROTO, HeaderValue::from_static(text))]);
            proxies(networks).told_scheme("127.0.0.1".parse().unwrap(), &headers)
        };
        let trusted = ["127.0.0.0/8"];
        assert_eq!((told(&trusted, "https"), told(&trusted, "HTTP")), (Some("https"), Some("http")));
        assert_eq!(told(&trusted, " https , http"), Some("https"));
        assert_eq!(told(&["10.0.0.0/8"], "https"), None);
        for other in ["", ",https", "ftp", "https://evil.example", "https\t//"] {
            assert_eq!(told(&trusted, other), None, "{other}");
        }
        assert_eq!(proxies(&trusted).told_scheme("127.0.0.1".parse().unwrap(), &HeaderMap::new()), None);
    }

    #[test]
    fn what_is_no_address_ends_the_walk() {
        let client = |line: &[u8]| client(&["127.0.0.0/8", "10.0.0.0/8"], "127.0.0.1", &[line]);
        for garbage in
            [&b"unknown"[..], b"_hidden", b"1.2.3", b"1.2.3.4.5", b"1.2.3.4/8", b"\xff", b"for=1.2.3.4", b"fe80::1%eth0", b"\"1.2.3.4\""]
        {
            assert_eq!(client(garbage), "127.0.0.1", "{garbage:?}");
            assert_eq!(client(&[b"6.6.6.6, ", garbage, b", 10.1.1.1"].concat()), "10.1.1.1", "{garbage:?}");
            assert_eq!(client(&[garbage, b", 6.6.6.6"].concat()), "6.6.6.6", "{garbage:?}");
        }
    }

    #[test]
    fn an_ipv4_address_in_ipv6_is_the_ipv4_address_in_networks_too() {
        assert_eq!(client(&["10.0.0.0/8"], "::ffff:10.0.0.1", &[b"::ffff:1.2.3.4"]), "1.2.3.4");
        assert_eq!(client(&["::ffff:10.0.0.0/104"], "10.7.7.7", &[b"1.2.3.4"]), "1.2.3.4");
        assert_eq!(client(&[], "::ffff:1.2.3.4", &[]), "1.2.3.4");
        assert!(proxies(&["::1"]).contains("::1".parse().unwrap()));
        assert!(!proxies(&["0.0.0.0/0"]).contains("::1".parse().unwrap()));
        assert!(proxies(&["::/0"]).contains("2a00::1".parse().unwrap()));
    }

    #[test]
    fn a_network_is_a_prefix_or_an_address() {
        assert!(proxies(&[" 10.1.2.3/8 "]).contains("10.9.9.9".parse().unwrap()));
        for text in ["", "10.0.0.0/33", "10.0.0", "localhost", "10.0.0.0-10.0.0.9", "10.0.0.0/8 10.1.0.0/16", "*"] {
            assert!(text.parse::<Network>().is_err(), "{text}");
        }
    }
}
