//! The path from a leaf to its root: found by names and signatures, whatever the order in which certificates were sent.
//!
//! Paths are not left to rustls-webpki: it compares names byte by byte, knows one salt length of RSASSA-PSS, and reads no time before 1970.
//! With it, one chain would get two verdicts, with and without trust anchors.

use std::{cell::RefCell, collections::HashMap};

use super::{
    algorithm::SignatureAlgorithm,
    parsed::Parsed,
    signature::{Verdict, is_signed_by},
    usage,
};
use crate::clock::Timestamp;

/// Where a path ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    /// At a self-issued certificate, which is its root.
    Root,
    /// At a trust anchor, which was not sent.
    Anchor,
    /// At a certificate whose issuer was not sent.
    Open,
    /// At a link that does not hold: what is wrong with it.
    Broken(String),
    /// At one whose signature cannot be verified: what is not supported.
    Unsupported(String),
    /// At an issuer whose RSA key is too small to be asked.
    TooSmall,
}

/// A path, the leaf first.
#[derive(Debug, Clone)]
pub struct Path {
    /// The certificates that were sent, as indexes.
    pub sent: Vec<usize>,
    /// The trust anchor at its end, as an index after those of the certificates that were sent.
    pub anchor: Option<usize>,
    /// Where it ends.
    pub end: End,
    /// How it leads to a trust anchor, or `None` if it does not.
    pub anchored: Option<Anchored>,
}

/// How a path leads to a trust anchor, at its end or on its way: what follows is for clients that do not have this anchor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Anchored {
    /// How many certificates, counted from the leaf, lead to it.
    pub among: usize,
    /// Why no client would accept these certificates with it, if there is no other that they lead to.
    pub fault: Option<String>,
}

impl Path {
    /// The certificates to store of a path that was put right: without the root, which clients have.
    pub fn stored(&self) -> &[usize] {
        match self.sent.split_last() {
            Some((_, stored)) if self.end == End::Root && !stored.is_empty() => stored,
            _ => &self.sent,
        }
    }
}

/// Certificates among which paths are searched: those that were sent, then trust anchors.
pub struct Certificates<'a> {
    all: Vec<&'a Parsed<'a>>,
    sent: usize,
    leaf: usize,
    now: Timestamp,
    /// Each pair is verified once.
    verdicts: RefCell<HashMap<(usize, usize), Verdict>>,
}

impl<'a> Certificates<'a> {
    /// Those that were sent, of which one is the leaf, and trust anchors.
    pub fn new(sent: &'a [Parsed<'a>], leaf: usize, anchors: &[&'a Parsed<'a>], now: Timestamp) -> Self {
        Self { all: sent.iter().chain(anchors.iter().copied()).collect(), sent: sent.len(), leaf, now, verdicts: RefCell::default() }
    }

    /// The certificates of a path with the trust anchor at its end.
    pub fn whole(&self, path: &Path) -> Vec<&'a Parsed<'a>> {
        path.sent.iter().chain(&path.anchor).map(|index| self.all[*index]).collect()
    }

    /// Whether the holder of one certificate's key signed another. Returns `None` if the other has another issuer's name.
    fn verdict(&self, certificate: usize, issuer: usize) -> Option<Verdict> {
        if self.all[certificate].issuer != self.all[issuer].subject {
            return None;
        }
        if let Some(verdict) = self.verdicts.borrow().get(&(certificate, issuer)) {
            return Some(verdict.clone());
        }
        let verdict = is_signed_by(&self.all[certificate].certificate, self.all[issuer].spki());
        self.verdicts.borrow_mut().insert((certificate, issuer), verdict.clone());
        Some(verdict)
    }

    /// Whether one certificate issued another.
    pub fn issued(&self, issuer: usize, certificate: usize) -> bool {
        self.verdict(certificate, issuer) == Some(Verdict::Signed)
    }

    /// Why no client would accept a path.
    pub fn fault(&self, path: &Path) -> Option<String> {
        usage::fault(&self.whole(path)).or_else(|| path.anchored.as_ref()?.fault.clone())
    }

    /// How certificates, the leaf first, lead to a trust anchor; `before` is how all but the last of them do.
    fn anchored(&self, sent: &[usize], before: Option<Anchored>) -> Option<Anchored> {
        if before.as_ref().is_some_and(|anchored| anchored.fault.is_none()) {
            return before;
        }
        let judged = sent.last().into_iter().flat_map(|last| self.anchors_of(*last)).map(|anchor| {
            let mut path: Vec<_> = sent.iter().map(|index| self.all[*index]).collect();
            if path.iter().all(|certificate| certificate.der != self.all[anchor].der) {
                path.push(self.all[anchor]);
            }
            Anchored { among: sent.len(), fault: usage::fault(&path) }
        });
        before.into_iter().chain(judged).min_by_key(|anchored| anchored.fault.is_some())
    }

    /// The trust anchors that issued a certificate: several if their CA has several certificates.
    fn anchors_of(&self, index: usize) -> impl Iterator<Item = usize> {
        (self.sent..self.all.len()).filter(move |anchor| self.issued(*anchor, index))
    }

    /// The best of all paths from the leaf: one that leads to a trust anchor rather than none, without faults and expired certificates, and
    /// the longest of those, which serves the oldest clients. Among equals, the one that lasts as long as the leaf or longest, and then the
    /// first in the order in which they were sent.
    pub fn best(&self) -> Path {
        let mut paths = Vec::new();
        self.extend(&mut Path { sent: vec![self.leaf], anchor: None, end: End::Open, anchored: None }, &mut paths);
        let rank = |path: &Path| {
            let is_sound = !matches!(path.end, End::Unsupported(_) | End::TooSmall | End::Broken(_)) && self.fault(path).is_none();
            let is_valid = self.invalid(path, path.sent.len()).is_none();
            (path.anchored.is_some(), is_sound, is_valid, path.stored().len(), path.end == End::Root, self.lasts(path))
        };
        // The last of equal ones would win.
        paths.into_iter().rev().max_by_key(rank).unwrap_or(Path { sent: vec![self.leaf], anchor: None, end: End::Open, anchored: None })
    }

    /// Until when a path serves the leaf.
    fn lasts(&self, path: &Path) -> Option<Timestamp> {
        path.stored().iter().map(|index| self.all[*index].not_after).min()
    }

    /// Collects every path that begins with this one. There are few: a CA is on a path once, and whose key signed is no choice.
    fn extend(&self, path: &mut Path, paths: &mut Vec<Path>) {
        let Some(&last) = path.sent.last() else { return };
        let others = (0..self.sent).filter(|index| !path.sent.contains(index)).collect::<Vec<_>>();
        let found: Vec<_> = others.iter().filter_map(|index| Some((*index, self.verdict(last, *index)?))).collect();
        let is_new = |index: usize| !path.sent.iter().any(|on_path| self.all[*on_path].is_same_authority(self.all[index]));
        let signers: Vec<_> =
            found.iter().filter(|(index, verdict)| *verdict == Verdict::Signed && is_new(*index)).map(|(index, _)| *index).collect();
        let before = path.clone();
        path.anchored = self.anchored(&path.sent, path.anchored.take());
        // One for a CA that is on the path adds nothing to it: the root that was sent stays the end.
        let anchors: Vec<usize> = self.anchors_of(last).filter(|anchor| is_new(*anchor)).collect();
        for signer in &signers {
            path.sent.push(*signer);
            self.extend(path, paths);
            path.sent.pop();
        }
        paths.extend(anchors.iter().map(|anchor| Path { anchor: Some(*anchor), end: End::Anchor, ..path.clone() }));
        if self.all[last].is_self_issued() {
            paths.push(Path { end: End::Root, ..path.clone() });
        } else if signers.is_empty() && anchors.is_empty() {
            let small = found.iter().find(|(_, verdict)| *verdict == Verdict::TooSmall);
            paths.push(match (small, self.dead_end(last, &found)) {
                (Some((small, _)), _) => Path { sent: [path.sent.as_slice(), &[*small]].concat(), end: End::TooSmall, ..path.clone() },
                (None, End::Open) => self.open(path.clone()),
                (None, end) => Path { end, ..path.clone() },
            });
        }
        *path = before;
    }

    /// A path whose last issuer was not sent, and is no trust anchor whose key can be asked.
    fn open(&self, path: Path) -> Path {
        let unusable = path.sent.last().and_then(|last| {
            (self.sent..self.all.len()).find_map(|anchor| match self.verdict(*last, anchor)? {
                Verdict::TooSmall => Some((anchor, End::TooSmall)),
                Verdict::Unsupported(what) => Some((anchor, End::Unsupported(self.signed_with(*last, &what)))),
                Verdict::Signed | Verdict::NotSigned => None,
            })
        });
        match unusable {
            Some((anchor, end)) => Path { anchor: Some(anchor), end, ..path },
            None => Path { end: End::Open, ..path },
        }
    }

    fn signed_with(&self, certificate: usize, what: &str) -> String {
        format!("{} is signed with {what}", self.all[certificate].label())
    }

    /// Why no certificate that was sent is the issuer of this one.
    fn dead_end(&self, last: usize, found: &[(usize, Verdict)]) -> End {
        let own = SignatureAlgorithm::of(&self.all[last].certificate).err();
        let unsupported = found.iter().find_map(|(_, verdict)| match verdict {
            Verdict::Unsupported(what) => Some(what.clone()),
            _ => None,
        });
        if let Some(what) = own.or(unsupported) {
            return End::Unsupported(self.signed_with(last, &what));
        }
        let namesake = found.iter().find(|(_, verdict)| *verdict == Verdict::NotSigned);
        namesake.map_or(End::Open, |(index, _)| End::Broken(self.not_signed(last, *index)))
    }

    fn not_signed(&self, certificate: usize, namesake: usize) -> String {
        let (certificate, namesake) = (self.all[certificate], self.all[namesake]);
        format!("{} has the name of the issuer of {}, and did not make its signature", namesake.label(), certificate.label())
    }

    /// The path that is exactly what was sent, in its order, as indexes that may repeat: each certificate signed by the next, and nothing else.
    pub fn forced(&self, order: &[usize]) -> Path {
        let anchored = (1..=order.len()).fold(None, |before, among| self.anchored(&order[..among], before));
        let path = |end| Path { sent: order.to_vec(), anchor: None, end, anchored: anchored.clone() };
        let Some((&last, others)) = order.split_last() else { return path(End::Open) };
        let links = others.iter().zip(&order[1..]);
        let own = |index: &usize| SignatureAlgorithm::of(&self.all[*index].certificate).err().map(|what| (*index, what));
        let foreign = || {
            links.clone().find_map(|(certificate, issuer)| match self.verdict(*certificate, *issuer) {
                Some(Verdict::Unsupported(what)) => Some((*certificate, what)),
                _ => None,
            })
        };
        let is_root = self.all[last].is_self_issued();
        let own = others.iter().chain((!is_root).then_some(&last)).find_map(own);
        if let Some((index, what)) = own.or_else(foreign) {
            return path(End::Unsupported(self.signed_with(index, &what)));
        }
        if let Some(what) = self.deviation(order) {
            return path(End::Broken(what));
        }
        if is_root {
            return path(End::Root);
        }
        let to_anchors = self.anchors_of(last).map(|anchor| Path { anchor: Some(anchor), ..path(End::Open) });
        to_anchors.min_by_key(|path| self.fault(path).is_some()).unwrap_or_else(|| self.open(path(End::Open)))
    }

    /// The first deviation from the path that was asked for.
    fn deviation(&self, order: &[usize]) -> Option<String> {
        let label = |index: usize| self.all[index].label();
        if order.first() != Some(&self.leaf) {
            return Some(format!("the order is wrong, since the leaf is {} and has to be the first", label(self.leaf)));
        }
        (1..order.len()).find_map(|at| {
            let (certificate, next) = (order[at - 1], order[at]);
            if order[..at].contains(&next) {
                return Some(format!("certificate {} is {} again: remove what repeats", at + 1, label(next)));
            }
            match self.verdict(certificate, next) {
                Some(Verdict::Signed | Verdict::TooSmall | Verdict::Unsupported(_)) => None,
                Some(Verdict::NotSigned) => Some(self.not_signed(certificate, next)),
                None => {
                    let issuer = order.iter().find(|index| **index != certificate && self.issued(**index, certificate));
                    Some(issuer.map_or_else(
                        || format!("{} did not issue {} and is not needed: remove it", label(next), label(certificate)),
                        |issuer| format!("the order is wrong, since {} was issued by {}", label(certificate), label(*issuer)),
                    ))
                }
            }
        })
    }

    /// An intermediate of a path that is not valid now, among so many certificates from the leaf on. A root's dates do not matter.
    pub fn invalid(&self, path: &Path, among: usize) -> Option<&'a Parsed<'a>> {
        let intermediates = path.stored().iter().take(among).skip(1).map(|index| self.all[*index]);
        intermediates.into_iter().find(|certificate| !certificate.is_valid(self.now))
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose};

    use super::*;

    /// A CA's name and key.
    struct Authority(CertificateParams, KeyPair);

    impl Authority {
        fn new(name: &str) -> Self {
            let mut params = CertificateParams::default();
            params.distinguished_name.push(DnType::CommonName, name);
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
            Self(params, KeyPair::generate().unwrap())
        }

        fn certify(&self, params: &CertificateParams, key: &KeyPair) -> Vec<u8> {
            params.signed_by(key, &Issuer::from_params(&self.0, &self.1)).unwrap().der().to_vec()
        }

        fn certificate_for(&self, other: &Self) -> Vec<u8> {
            self.certify(&other.0, &other.1)
        }

        fn leaf(&self) -> Vec<u8> {
            self.certify(&CertificateParams::new(["www.acme-widgets.com".to_owned()]).unwrap(), &KeyPair::generate().unwrap())
        }
    }

    fn now() -> Timestamp {
        Timestamp::from_micros(1_767_225_600_000_000)
    }

    /// The certificates that are stored and where the path ends, for certificates of which one is the leaf.
    fn best<'a>(sent: &[&'a Vec<u8>], leaf: &Vec<u8>, anchors: &[&Vec<u8>]) -> (Vec<&'a Vec<u8>>, End, bool) {
        let read = |all: &[&'a Vec<u8>]| all.iter().map(|der| Parsed::read(1, der).unwrap()).collect::<Vec<_>>();
        let parsed = read(sent);
        let anchors: Vec<_> = anchors.iter().map(|der| Parsed::read(0, der).unwrap()).collect();
        let leaf = sent.iter().position(|der| *der == leaf).unwrap();
        let path = Certificates::new(&parsed, leaf, &anchors.iter().collect::<Vec<_>>(), now()).best();
        (path.stored().iter().map(|index| sent[*index]).collect(), path.end.clone(), path.anchored.is_some())
    }

    fn permutations<T: Copy>(items: &[T]) -> Vec<Vec<T>> {
        if items.is_empty() {
            return vec![Vec::new()];
        }
        let with = |at: usize| {
            let others = [&items[..at], &items[at + 1..]].concat();
            permutations(&others).into_iter().map(move |rest| [vec![items[at]], rest].concat())
        };
        (0..items.len()).flat_map(with).collect()
    }

    #[test]
    fn the_longest_path_is_found_in_whatever_order_certificates_come() {
        let (old, new, sub) = (Authority::new("Old Root"), Authority::new("New Root"), Authority::new("Issuing CA"));
        let (leaf, of_sub, crossed) = (sub.leaf(), new.certificate_for(&sub), old.certificate_for(&new));
        let (new_root, old_root) = (new.certificate_for(&new), old.certificate_for(&old));
        for order in permutations(&[&leaf, &of_sub, &crossed, &new_root, &old_root]) {
            assert_eq!(best(&order, &leaf, &[]), (vec![&leaf, &of_sub, &crossed], End::Root, false));
        }
        for order in permutations(&[&leaf, &of_sub, &crossed]) {
            assert_eq!(best(&order, &leaf, &[&new_root]), (vec![&leaf, &of_sub, &crossed], End::Open, true));
            assert_eq!(best(&order, &leaf, &[&old_root]), (vec![&leaf, &of_sub, &crossed], End::Anchor, true));
        }
        assert_eq!(best(&[&leaf, &of_sub], &leaf, &[&new_root]), (vec![&leaf, &of_sub], End::Anchor, true));
        assert_eq!(best(&[&leaf, &of_sub], &leaf, &[&old_root]), (vec![&leaf, &of_sub], End::Open, false));
    }

    #[test]
    fn a_namesake_is_no_issuer_and_two_cas_that_signed_each_other_end_a_path() {
        let (sub, namesake) = (Authority::new("Issuing CA"), Authority::new("Issuing CA"));
        let (leaf, of_namesake) = (sub.leaf(), namesake.certificate_for(&namesake));
        let (stored, end, _) = best(&[&of_namesake, &leaf], &leaf, &[]);
        assert!(stored == [&leaf] && matches!(end, End::Broken(_)), "{end:?}");
        let other = Authority::new("Another CA");
        let (one, back) = (other.certificate_for(&sub), sub.certificate_for(&other));
        for order in permutations(&[&leaf, &one, &back, &of_namesake]) {
            let (stored, end, _) = best(&order, &leaf, &[]);
            assert_eq!((stored, end == End::Open || matches!(end, End::Broken(_))), (vec![&leaf, &one, &back], true));
        }
    }
}
