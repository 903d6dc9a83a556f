//! The one table of codes: every error and warning that a client can see, with its number, HTTP status and text.
//!
//! The documented numbers and texts are those of Cloudflare's custom CSR API, to the letter; a test compares them
//! with `shared/tests/data/status-codes.json`.

/// Declares an enum of codes with the number, status and text of each, from one table.
macro_rules! code_table {
    ($(#[$meta:meta])* $name:ident { $($(#[doc = $doc:literal])+ $variant:ident = $number:literal, $status:literal, $message:literal;)+ }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u16)]
        pub enum $name { $($(#[doc = $doc])+ $variant = $number,)+ }

        impl $name {
            /// Every code, in the order of the table.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// The number in the envelope.
            #[must_use]
            pub const fn number(self) -> u16 {
                self as u16
            }

            /// The HTTP status that a response with this code first in it has.
            #[must_use]
            pub const fn status(self) -> u16 {
                match self { $(Self::$variant => $status,)+ }
            }

            /// When it is sent: a sentence, with names of members in backticks.
            #[must_use]
            pub fn meaning(self) -> &'static str {
                match self { $(Self::$variant => concat!($($doc),+).trim_start(),)+ }
            }

            /// The text. `:reason` stands for the details of a case.
            #[must_use]
            pub const fn template(self) -> &'static str {
                match self { $(Self::$variant => $message,)+ }
            }
        }
    };
}

code_table! {
    /// An error code of the HTTP API.
    ErrorCode {
        /// No bearer token in the Authorization header.
        BearerMissing = 1000, 401, "Unable to extract bearer token";
        /// The token is not three base64url parts.
        TokenUnparsable = 1001, 401, "Unable to parse JWT token";
        /// The token's header is not acceptable.
        TokenHeaderBad = 1002, 401, "Bad JWT header";
        /// Signature, validity, issuer or audience is wrong.
        TokenUnverified = 1003, 401, "Failed to verify JWT token";
        /// The payload cannot be read as claims.
        ClaimsUnreadable = 1004, 401, "Failed to get claims from JWT token";
        /// A required claim is absent.
        ClaimsMissing = 1005, 401, "JWT token does not have required claims";
        /// The body, or a field of it, is not the JSON that is asked for.
        BodyUndecodable = 1400, 400, "Unable to decode the JSON request body. Check your input and try again.";
        /// An empty zone or account ID in the path.
        ZoneIdMissing = 1401, 400, "Zone ID is required. Check your input and try again.";
        /// No Authorization header.
        AuthorizationMissing = 1402, 400, "The request has no Authorization header. Check your input and try again.";
        /// No quota is allocated.
        QuotaNotAllocated = 1403, 403, "No quota has been allocated for this zone. If you are already a paid Cloudflare for SaaS customer, contact your Customer Success Manager for additional provisioning. If you are not yet enrolled, fill out this contact form and our sales team will contact you.";
        /// The token does not reach this scope, or the scope was not granted custom CSRs.
        AccessNotGranted = 1404, 403, "Access to generating CSRs has not been granted for this zone. If you are already a paid Cloudflare for SaaS customer, contact your Customer Success Manager for additional provisioning. If you are not yet enrolled, fill out this contact form and our sales team will contact you.";
        /// `country` is missing.
        CountryMissing = 1405, 400, "Country field is required. Check your input and try again.";
        /// `state` is missing.
        StateMissing = 1406, 400, "State field is required. Check your input and try again.";
        /// `locality` is missing.
        LocalityMissing = 1407, 400, "Locality field is required. Check your input and try again.";
        /// `organization` is missing.
        OrganizationMissing = 1408, 400, "Organization field is required. Check your input and try again.";
        /// `common_name` is missing.
        CommonNameMissing = 1409, 400, "Common Name field is required. Check your input and try again.";
        /// `common_name` is over 64 characters.
        CommonNameTooLong = 1410, 400, "The specified Common Name is too long. Maximum allowed length is 64 characters. Check your input and try again.";
        /// `sans` is missing or empty.
        SansMissing = 1411, 400, "At least one subject alternative name (SAN) is required. Check your input and try again.";
        /// A SAN is no host name.
        SanInvalid = 1412, 400, "Invalid subject alternative name(s) (SAN). SANs have to be smaller than 256 characters in length, cannot be IP addresses, cannot contain any special characters such as ~`!@#$%^&*()=+{}[] \\;:’\",<>/? and cannot begin or end with a ‘-’ character. Check your input and try again.";
        /// A SAN has non-ASCII characters.
        SanNotAscii = 1413, 400, "Subject Alternative Names (SANs) with non-ASCII characters are not supported. Check your input and try again.";
        /// A SAN is in a reserved top domain.
        SanReserved = 1414, 400, "Reserved top domain subject alternative names (SAN), such as ’test’, ’example’, ‘invalid’ or ’localhost’, is not supported. Check your input and try again.";
        /// No registrable domain can be derived from a SAN.
        SanNotRegistrable = 1415, 400, "Unable to parse subject alternative name(s) (SAN) - :reason. Check your input and try again.";
        /// A SAN is in one of the example domains.
        SanExampleDomain = 1416, 400, "Subject Alternative Names (SANs) ending in example.com, example.net, or example.org are prohibited. Check your input and try again.";
        /// `key_type` is none that is accepted; by default those are `rsa2048` and `p256v1`.
        KeyTypeInvalid = 1417, 400, "Invalid key type. Only ‘rsa2048’ or ‘p256v1’ is accepted. Check your input and try again.";
        /// The custom CSR ID in the path is no UUID.
        CustomCsrIdInvalid = 1418, 400, "The custom CSR ID is invalid. Check your input and try again.";
        /// No such custom CSR in this scope.
        CustomCsrNotFound = 1419, 404, "The custom CSR was not found.";
        /// An active certificate uses the custom CSR.
        CustomCsrInUse = 1420, 409, "The custom CSR is associated with an active certificate pack. You will need to delete all associated active certificate packs before you can delete the custom CSR.";
        /// `certificate` holds something else than certificates.
        CertificateUnparsable = 1426, 400, "Unable to parse the certificate: :reason. Send certificates in PEM, the leaf first.";
        /// `certificate` is missing or empty.
        CertificateMissing = 1427, 400, "Certificate field is required: the certificate that the CA issued, in PEM. Check your input and try again.";
        /// The leaf is for another key, or for this one in a forbidden encoding.
        CertificateKeyMismatch = 1429, 400, "The certificate's public key :reason.";
        /// `custom_csr_id` is no UUID.
        CertificateCsrIdInvalid = 1430, 400, "The custom_csr_id is not a UUID. Send the ID of the custom CSR that the certificate was issued for.";
        /// `custom_csr_id` names no custom CSR of this zone or its account, or the zone lost the one that its certificate uses.
        CertificateCsrNotFound = 1431, 404, "The custom CSR :reason.";
        /// Several certificates are no CA's.
        SeveralLeaves = 1444, 400, "The certificate field holds several leaf certificates: :reason. Send one leaf certificate, followed by its intermediates.";
        /// All certificates are a CA's.
        NoLeaf = 1445, 400, "The certificate field holds CA certificates only. Send the leaf certificate first, followed by its intermediates.";
        /// SHA-1, MD5, a curve that is not supported, or something unknown.
        SignatureUnsupported = 1447, 400, "The signature algorithm is not supported: :reason. Have the CA sign with RSA (PKCS #1 v1.5 or PSS) or ECDSA and SHA-256, SHA-384 or SHA-512, or with Ed25519.";
        /// `country` is no ISO 3166-1 alpha-2 code.
        CountryUnknown = 1460, 400, "The specified Country is not an ISO 3166-1 alpha-2 code. Check your input and try again.";
        /// A field is longer than its upper bound.
        FieldTooLong = 1461, 400, "The field :reason. Check your input and try again.";
        /// A field has control characters.
        FieldHasControls = 1462, 400, "The field :reason. Check your input and try again.";
        /// Over 100 SANs.
        TooManySans = 1463, 400, "At most 100 subject alternative names (SANs) are allowed. Check your input and try again.";
        /// A query parameter or header is out of range.
        ParameterOutOfRange = 1464, 400, "The :reason. Check your input and try again.";
        /// The quota is used up.
        QuotaUsedUp = 1465, 403, "The quota is used up: :reason. Delete a custom CSR that is no longer needed, or ask for a larger quota.";
        /// Idempotency-Key reused with another body.
        IdempotencyKeyReused = 1466, 422, "The Idempotency-Key was used before with another request body. Send another key, or the same body.";
        /// The body is over 64 KiB.
        BodyTooLarge = 1467, 413, "The request body is larger than 64 KiB. Check your input and try again.";
        /// The body is compressed.
        BodyEncoded = 1468, 415, "The request body is compressed, which is not supported. Send it without a Content-Encoding.";
        /// A CSR was asked for as a file, and there is none yet.
        CsrNotMade = 1469, 406, "There is no CSR to send as a file: :reason.";
        /// Too many requests.
        TooManyRequests = 1470, 429, "Too many requests. Try again later.";
        /// The database or a part of the service is not ready.
        NotReady = 1471, 503, "The service is not ready: :reason. Try again later.";
        /// No `custom_csr_id`, and no custom CSR has the leaf's key.
        NoCsrForKey = 1472, 400, "No custom_csr_id was sent, and no active custom CSR of this zone or its account has the certificate's public key. Send the ID of the custom CSR that the certificate was issued for, or the certificate that was issued for a CSR made here.";
        /// A private key was sent.
        PrivateKeyRefused = 1473, 400, "A private key is never uploaded: private keys are made here and do not leave. :reason";
        /// The custom CSR is not `active`.
        CustomCsrNotActive = 1474, 409, "The custom CSR is not active: :reason.";
        /// The leaf is expired or not yet valid.
        LeafNotValid = 1475, 400, "The certificate :reason. Send one that is valid now.";
        /// The only certificate for the custom CSR's key is a CA's.
        CaForKey = 1476, 400, "The certificate for this custom CSR's key is a CA certificate. Have the CA issue a leaf certificate (basicConstraints without CA).";
        /// A link of the chain does not hold.
        ChainBroken = 1477, 400, "The chain is broken: :reason. Send the leaf first, followed by each issuer in turn, as the CA delivers them.";
        /// An RSA key under 2048 bits.
        RsaKeyTooSmall = 1478, 400, "An RSA key is too small: :reason. At least 2048 bits are needed: have the CA use larger keys.";
        /// No path to a trust anchor.
        NoTrustedPath = 1479, 400, "There is no valid path to a trust anchor of this service: :reason. Send the CA's current intermediates too, or use a CA that is trusted here.";
        /// The custom certificate ID in the path is not 32 hexadecimal digits.
        CustomCertificateIdInvalid = 1480, 400, "The custom certificate ID is invalid: it has 32 hexadecimal digits. Check your input and try again.";
        /// No such custom certificate in this zone.
        CustomCertificateNotFound = 1481, 404, "The custom certificate was not found.";
        /// The leaf is stored already.
        CertificateStored = 1482, 409, "The certificate is stored already, as custom certificate :reason. Use that one, or send another certificate.";
        /// The custom CSR has as many custom certificates as it may have.
        TooManyCertificates = 1483, 409, "The custom CSR has :reason custom certificates, as many as it may have in all zones together. Delete one that is no longer needed, or renew one with PATCH.";
        /// No TLS client would accept the leaf for a server.
        NotForServers = 1484, 400, "No TLS client would accept this certificate for a server: :reason. Have the CA issue one for TLS servers, from a CA that may issue it.";
        /// `url` is missing, or leads where webhooks may not lead.
        WebhookUrlInvalid = 1490, 400, "The URL of a webhook :reason. Send an https URL to a public address, of at most 2048 characters.";
        /// `events` is missing or empty, or has a type that there is not.
        WebhookEventsInvalid = 1491, 400, "The events of a webhook :reason. Send an array of types of events, or of ‘*’ for all.";
        /// The webhook ID in the path is no UUID.
        WebhookIdInvalid = 1492, 400, "The webhook ID is invalid. Check your input and try again.";
        /// No such webhook in this scope.
        WebhookNotFound = 1493, 404, "The webhook was not found.";
        /// The zone or account has as many webhooks as it may have.
        TooManyWebhooks = 1494, 409, "There are :reason webhooks, as many as one zone or account may have. Delete one that is no longer needed.";
        /// `expires_in` of a hand-over link is out of its bounds.
        HandoverLifetimeInvalid = 1495, 400, "The expires_in is invalid: it is a whole number of seconds from 3600 (an hour) to 2592000 (30 days). Check your input and try again.";
        /// `note` of a hand-over link is too long.
        HandoverNoteTooLong = 1496, 400, "The note is longer than 500 characters. Shorten it and try again.";
        /// The ID of a hand-over link in the path is not one.
        HandoverIdInvalid = 1497, 400, "The handover ID is invalid. Check your input and try again.";
        /// No such hand-over link of this custom CSR.
        HandoverNotFound = 1498, 404, "The hand-over link was not found.";
        /// The custom CSR has as many open hand-over links as it may have.
        TooManyHandovers = 1499, 409, "The custom CSR has 20 hand-over links that are still open, as many as it may have. Revoke one that is no longer needed.";
        /// A fault of ours.
        Internal = 1500, 500, "Internal Server Error";
        /// `key` of a renewal policy is missing, or neither `reuse` nor `new`.
        RenewalKeyInvalid = 1510, 400, "The key of a renewal policy must be ‘reuse’ or ‘new’. Check your input and try again.";
        /// `at` of a renewal policy is out of its bounds.
        RenewalPointInvalid = 1511, 400, "The at of a renewal policy must be a number over 0 and under 1: the part of a certificate's lifetime that is left when it is renewed. Check your input and try again.";
        /// The zone has no renewal policy.
        RenewalPolicyNotFound = 1512, 404, "The zone has no renewal policy.";
        /// `key_types` of a set are not 2 to 4 different ones, or stand beside a `key_type`.
        KeyTypesInvalid = 1513, 400, "The key_types field :reason. Send 2 to 4 different key types in it, and no key_type. Check your input and try again.";
        /// No such route.
        RouteNotFound = 7000, 404, "No route for that URI";
        /// The route exists, the method does not.
        MethodNotAllowed = 7001, 405, "Method not allowed for that URI";
    }
}

code_table! {
    /// A warning in `messages`: the request was accepted all the same.
    WarningCode {
        /// The common name is not among the SANs.
        CommonNameNotInSans = 2000, 200, "The Common Name is not among the subject alternative names (SANs): public CAs refuse such a request.";
        /// A SAN has an underscore.
        SanUnderscore = 2001, 200, "The subject alternative name (SAN) has a ‘_’: public CAs refuse such a name.";
        /// The certificate's names are not those of the CSR.
        CertificateSansDiffer = 2002, 200, "The certificate's subject alternative names (SANs) are not those of the CSR: :reason.";
        /// The path ends before it reaches a root.
        IntermediateMissing = 2003, 200, "An intermediate certificate is missing, that of the issuer :reason: most clients need the intermediates too.";
        /// The certificate expires soon.
        ExpiresSoon = 2004, 200, "The certificate expires soon, at :reason.";
        /// A member that does nothing here.
        NoEffect = 2005, 200, "This has no effect here: it is ignored.";
        /// A SAN is longer than DNS allows.
        SanOverDnsLength = 2006, 200, "The subject alternative name (SAN) has over 253 characters: DNS stops there.";
        /// Certificates are stored in another order.
        OrderChanged = 2007, 200, "The order of the certificates was changed: each is followed by its issuer now (as sent, they are number :reason).";
        /// Certificates repeat, or are not on the path.
        CertificatesLeftOut = 2008, 200, "Certificates that are not needed were left out: :reason.";
        /// An intermediate expires first.
        LeafOutlives = 2009, 200, "An intermediate is not valid for as long as the certificate: :reason. Get the CA's current intermediates.";
        /// No name that a browser would look at.
        NoSubjectAltName = 2010, 200, "The certificate has no DNS name or IP address as a subject alternative name (SAN): browsers refuse it.";
        /// A SAN has a label that looks like an A-label and is none.
        SanLabelReserved = 2011, 200, "The subject alternative name (SAN) has a label that public CAs refuse: :reason.";
        /// A member that this request does not have.
        UnknownMember = 2012, 200, "The request has no member ‘:reason’: it is ignored. Check its spelling.";
        /// A SAN ends in a top domain that is not in the public DNS.
        SanTopDomainUnlisted = 2013, 200, "The subject alternative name (SAN) ends in :reason, which is no top domain of the public DNS: public CAs refuse such a name.";
        /// Stands beside an error, and says what its text does not.
        Hint = 2100, 200, ":reason";
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(serde::Deserialize)]
    struct Row {
        status: u16,
        code: u16,
        message: String,
        d: Option<u32>,
    }

    #[test]
    fn every_documented_error_has_its_number_status_and_text_to_the_letter() {
        let rows: Vec<Row> = serde_json::from_str(include_str!("../tests/data/status-codes.json")).unwrap();
        assert!(rows.len() > 25);
        for row in rows {
            let code = ErrorCode::ALL.iter().find(|code| code.number() == row.code).unwrap_or_else(|| panic!("{} is missing", row.code));
            assert_eq!(code.status(), row.status, "{}", row.code);
            let text = row.d.map_or(row.message.clone(), |d| row.message.replace("%d", &d.to_string()));
            assert_eq!(code.template(), text, "{}", row.code);
        }
    }

    #[test]
    fn the_table_is_in_the_order_of_its_numbers_so_that_sorting_issues_sorts_by_code() {
        assert!(ErrorCode::ALL.windows(2).all(|pair| pair[0].number() < pair[1].number()));
    }
}
