//! Verifies tokens. It knows no HTTP framework.

use std::{
    fmt::Display,
    future::pending,
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::{Map, Value};
use shared::{bodies::json::Json, clock::Clock, codes::ErrorCode};

use super::{
    cache::{TokenCache, TokenHash},
    caller::Caller,
    claims::{Claims, VerifiedToken},
    keys::{KeyError, KeySet, KeySource, Unfit},
    refusal::Refusal,
    renewal::Renewal,
    settings::JwtSettings,
};

/// The longest token that is looked at, in bytes.
pub(super) const TOKEN_MAX_BYTES: usize = 16 * 1024;

/// Verifies tokens.
pub struct Authenticator {
    /// Replaced as a whole: a request goes on with the keys that it found first.
    keys: RwLock<Arc<Keys>>,
    /// Where the keys are fetched.
    renewal: Option<Renewal>,
    claims: Claims,
    clock: Arc<dyn Clock>,
}

/// Keys, and the tokens that they verified. New keys start with none: what the old ones accepted, even a moment ago, is forgotten with them.
struct Keys {
    set: KeySet,
    verified: TokenCache,
}

impl Keys {
    fn new(set: KeySet) -> Self {
        Self { set, verified: TokenCache::default() }
    }

    fn load(source: &KeySource) -> Result<Arc<Self>, KeyError> {
        Ok(Arc::new(Self::new(KeySet::load(source)?)))
    }
}

impl Authenticator {
    /// Loads the keys, but for those that have to be fetched.
    ///
    /// # Errors
    ///
    /// [`KeyError`], which names the setting and the file.
    pub fn new(settings: &JwtSettings, clock: Arc<dyn Clock>) -> Result<Self, KeyError> {
        let renewal = matches!(settings.source, KeySource::JwksUrl(_)).then(Renewal::new);
        Ok(Self { keys: RwLock::new(Keys::load(&settings.source)?), renewal, claims: Claims::new(settings), clock })
    }

    /// Loads the keys again if their file changed, and uses them from now on. Returns their number, or `None` if nothing changed. The tokens
    /// that the old keys verified are forgotten with them. On an error the present keys stay.
    ///
    /// # Errors
    ///
    /// [`KeyError`], which names the setting and the file.
    pub fn reload_if_changed(&self, source: &KeySource) -> Result<Option<usize>, KeyError> {
        Ok(self.keys().set.load_if_changed(source)?.map(|set| self.replace(set)))
    }

    fn replace(&self, set: KeySet) -> usize {
        let count = set.len();
        *self.keys.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(Keys::new(set));
        count
    }

    /// Fetches the keys with this, and uses them from now on. Returns their number, or `None` if nothing changed. On an error, that of the
    /// fetch too, the present keys stay.
    ///
    /// # Errors
    ///
    /// What is wrong, with the setting and the URL.
    pub async fn refetch<E: Display>(
        &self,
        source: &KeySource,
        fetch: impl Future<Output = Result<Vec<u8>, E>>,
    ) -> Result<Option<usize>, KeyError> {
        let ask = self.renewal.as_ref().map(Renewal::number);
        let set = match fetch.await {
            Ok(bytes) => self.keys().set.parse_if_changed(source, &bytes),
            Err(error) => Err(source.error(error.to_string())),
        };
        let changed = set.map(|set| set.map(|set| self.replace(set)));
        if let (Some(renewal), Some(ask)) = (&self.renewal, ask) {
            renewal.answer(ask, changed.as_ref().err().map(KeyError::problem));
        }
        changed
    }

    /// Resolves when a request needs keys that are not there; never where keys are not fetched.
    pub async fn asked(&self) {
        match &self.renewal {
            Some(renewal) => renewal.asked().await,
            None => pending().await,
        }
    }

    /// Why no token can be judged yet, if the keys were not fetched yet.
    #[must_use]
    pub fn waits_for_keys(&self) -> Option<String> {
        let renewal = self.renewal.as_ref().filter(|_| self.keys().set.is_empty())?;
        Some(format!("there are no keys for tokens yet: --jwt-jwks-url: {}", renewal.problem()))
    }

    /// How long ago the keys were last fetched, if they come by URL and were.
    #[must_use]
    pub fn age_of_keys(&self) -> Option<Duration> {
        self.renewal.as_ref()?.age()
    }

    /// Checks the values of a request's Authorization headers, in the order of the contract's table. A token that names an unknown key waits
    /// until the keys were fetched again, if they come by URL and have not just been.
    ///
    /// # Errors
    ///
    /// 1402 and 1000 to 1005; 1471 while there are no keys yet.
    pub async fn authenticate(&self, authorization: &[&[u8]]) -> Result<Arc<Caller>, Refusal> {
        match (self.judge(authorization), &self.renewal) {
            (Err(refusal), Some(renewal)) if refusal.is_for_want_of_a_key => {
                renewal.ask().await;
                self.judge(authorization)
            }
            (judged, _) => judged,
        }
    }

    fn judge(&self, authorization: &[&[u8]]) -> Result<Arc<Caller>, Refusal> {
        let header = match authorization {
            [] => return Err(Refusal::new(ErrorCode::AuthorizationMissing, "no Authorization header")),
            [one] => *one,
            _ => return Err(Refusal::new(ErrorCode::BearerMissing, "several Authorization headers")),
        };
        let token =
            bearer(header).ok_or_else(|| Refusal::new(ErrorCode::BearerMissing, "the Authorization header is not Bearer and one token"))?;
        self.check(&self.keys(), token)
    }

    fn keys(&self) -> Arc<Keys> {
        Arc::clone(&self.keys.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Checks a token by these keys. The cache holds only what does not change about it: whether it is in time is checked again.
    fn check(&self, keys: &Keys, token: &str) -> Result<Arc<Caller>, Refusal> {
        let Some(hash) = TokenHash::of(token) else { return Ok(self.verify(&keys.set, token)?.caller) };
        let Some(verified) = keys.verified.find(&hash) else {
            let verified = Arc::new(self.verify(&keys.set, token)?);
            keys.verified.insert(hash, Arc::clone(&verified));
            return Ok(Arc::clone(&verified.caller));
        };
        self.claims.check_time(&verified, self.clock.now()).inspect_err(|_| keys.verified.remove(&hash))?;
        Ok(Arc::clone(&verified.caller))
    }

    fn verify(&self, keys: &KeySet, token: &str) -> Result<VerifiedToken, Refusal> {
        let Token { header, payload, signed, signature } =
            Token::parse(token).ok_or_else(|| Refusal::new(ErrorCode::TokenUnparsable, "not a JWT"))?;
        let header = object(&header)
            .ok_or_else(|| Refusal::new(ErrorCode::TokenHeaderBad, "the header is not a JSON object without repeated members"))?;
        let fitting = keys.select(&header).map_err(|unfit| self.refusal(&unfit))?;
        if !fitting.iter().any(|key| key.verifies(signed, signature)) {
            return Err(Refusal::new(ErrorCode::TokenUnverified, "bad signature"));
        }
        let payload = object(&payload)
            .ok_or_else(|| Refusal::new(ErrorCode::ClaimsUnreadable, "the claims are not a JSON object without repeated members"))?;
        self.claims.check(&payload, self.clock.now())
    }

    fn refusal(&self, unfit: &Unfit) -> Refusal {
        match unfit {
            Unfit::Header(cause) => Refusal::new(ErrorCode::TokenHeaderBad, *cause),
            Unfit::UnknownKey => Refusal::new(ErrorCode::TokenHeaderBad, "unknown key").for_want_of_a_key(),
            // Those who send tokens need not know where their keys come from.
            Unfit::NoKeysYet => {
                let refusal = Refusal::new(ErrorCode::NotReady, "there are no keys for tokens yet");
                match self.waits_for_keys() {
                    Some(detail) => refusal.with_detail(detail),
                    None => refusal,
                }
            }
        }
    }
}

/// The token of a `Bearer` header (RFC 6750): one scheme, one token.
pub(super) fn bearer(header: &[u8]) -> Option<&str> {
    let mut words = std::str::from_utf8(header).ok()?.split(' ').filter(|word| !word.is_empty());
    let (scheme, token) = (words.next()?, words.next()?);
    (scheme.eq_ignore_ascii_case("bearer") && words.next().is_none()).then_some(token)
}

/// A JWS in compact form (RFC 7515, 7.1), decoded but not verified.
struct Token<'a> {
    header: Vec<u8>,
    payload: Vec<u8>,
    /// What the signature is over.
    signed: &'a str,
    /// Still encoded.
    signature: &'a str,
}

impl<'a> Token<'a> {
    fn parse(token: &'a str) -> Option<Self> {
        if token.len() > TOKEN_MAX_BYTES {
            return None;
        }
        let (signed, signature) = token.rsplit_once('.')?;
        let (header, payload) = signed.split_once('.')?;
        let decode = |part: &str| URL_SAFE_NO_PAD.decode(part).ok();
        decode(signature)?;
        Some(Self { header: decode(header)?, payload: decode(payload)?, signed, signature })
    }
}

/// An object, if no member anywhere in it comes twice: what is read first and what is read last might be two tokens.
fn object(bytes: &[u8]) -> Option<Map<String, Value>> {
    Json::parse(bytes)?;
    serde_json::from_slice(bytes).ok()
}

#[cfg(test)]
mod tests;
