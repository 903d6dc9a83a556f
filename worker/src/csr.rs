//! Certification requests (PKCS#10, RFC 2986).

use rcgen::{CertificateParams, DistinguishedName, DnType, DnValue, SanType, SigningKey, string::PrintableString};
use shared::{
    custom_csr::{CustomCsrRequest, Subject},
    names::san::dns_names,
};

/// Why a certification request was not built.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CsrError {
    /// The key did not sign, or its public key does not verify what it signed.
    #[error("the certification request could not be signed")]
    Signature,
    /// The stored request does not fit X.509.
    #[error("the certification request could not be built: {0}")]
    Values(String),
}

impl From<rcgen::Error> for CsrError {
    fn from(error: rcgen::Error) -> Self {
        match error {
            rcgen::Error::RemoteKeyError => Self::Signature,
            other => Self::Values(other.to_string()),
        }
    }
}

/// Builds and signs the certification request for `request` with this private key: PEM, with a newline at the end.
///
/// Version 1; subject C, ST, L, O, OU, CN; the SANs as dNSName in an extensionRequest; no other attribute.
///
/// # Errors
///
/// [`CsrError`] if the values do not fit X.509, or the key does not sign.
pub fn certification_request(request: &CustomCsrRequest, private_key: &impl SigningKey) -> Result<String, CsrError> {
    let CustomCsrRequest { subject, sans, key_type: _, name: _, description: _ } = request;
    let mut params = CertificateParams::default();
    params.distinguished_name = distinguished_name(subject)?;
    params.subject_alt_names =
        dns_names(sans).into_iter().map(|name| Ok(SanType::DnsName(name.try_into()?))).collect::<Result<_, rcgen::Error>>()?;
    Ok(params.serialize_request(private_key)?.pem()?)
}

fn distinguished_name(subject: &Subject) -> Result<DistinguishedName, CsrError> {
    let Subject { country, state, locality, organization, organizational_unit, common_name } = subject;
    let mut name = DistinguishedName::new();
    // rcgen would write a UTF8String, which RFC 5280 does not allow here.
    let country = PrintableString::try_from(country.to_ascii_uppercase())?;
    name.push(DnType::CountryName, DnValue::PrintableString(country));
    let rest = [
        (DnType::StateOrProvinceName, Some(state)),
        (DnType::LocalityName, Some(locality)),
        (DnType::OrganizationName, Some(organization)),
        (DnType::OrganizationalUnitName, organizational_unit.as_ref()),
        (DnType::CommonName, Some(common_name)),
    ];
    for (attribute, value) in rest {
        if let Some(value) = value {
            name.push(attribute, DnValue::Utf8String(value.clone()));
        }
    }
    Ok(name)
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::{
        digest,
        signature::{ML_DSA_44, UnparsedPublicKey},
    };
    use shared::{custom_csr::KeyType, testing::request};
    use x509_parser::{
        certification_request::X509CertificationRequest,
        extensions::{GeneralName, ParsedExtension},
        pem::parse_x509_pem,
        prelude::FromDer,
    };

    use super::*;
    use crate::keys::{KeyGenerator, aws_lc::AwsLc};

    #[test]
    fn a_csr_has_the_requested_values_and_is_signed_by_its_key() {
        for key_type in KeyType::ALL {
            let mut request = request(*key_type);
            request.subject.organizational_unit = Some("IT, \"Ops\"".into());
            let key = AwsLc.generate(*key_type).unwrap();
            let csr = certification_request(&request, &key).unwrap();
            assert!(csr.ends_with("-----END CERTIFICATE REQUEST-----\n") && !csr.contains('\r'));
            let (_, pem) = parse_x509_pem(csr.as_bytes()).unwrap();
            let (_, parsed) = X509CertificationRequest::from_der(&pem.contents).unwrap();
            let info = &parsed.certification_request_info;
            if *key_type == KeyType::MlDsa44 {
                // x509-parser does not know ML-DSA. tests/test_key_types.py has another library verify it.
                let public_key = UnparsedPublicKey::new(&ML_DSA_44, &info.subject_pki.subject_public_key.data);
                public_key.verify(info.raw, &parsed.signature_value.data).unwrap();
            } else {
                parsed.verify_signature().unwrap();
            }
            assert_eq!(info.version.0, 0, "PKCS#10 version 1 is written as 0");
            let subject: Vec<_> = info.subject.iter_attributes().map(|a| (a.attr_type().to_id_string(), a.as_str().unwrap())).collect();
            let expected = [
                ("2.5.4.6", "US"),
                ("2.5.4.8", "California"),
                ("2.5.4.7", "San Francisco"),
                ("2.5.4.10", "Müller & Söhne"),
                ("2.5.4.11", "IT, \"Ops\""),
                ("2.5.4.3", "www.foo.com"),
            ];
            assert_eq!(subject, expected.map(|(id, value)| (id.to_owned(), value)));
            assert_eq!(info.attributes().len(), 1);
            let extensions: Vec<_> = parsed.requested_extensions().unwrap().collect();
            let [ParsedExtension::SubjectAlternativeName(sans)] = extensions.as_slice() else { panic!("{extensions:?}") };
            assert_eq!(sans.general_names, [GeneralName::DNSName("www.foo.com"), GeneralName::DNSName("foo.com")]);
            assert_eq!(digest::digest(&digest::SHA256, info.subject_pki.raw).as_ref(), key.spki_sha256());
        }
    }
}
