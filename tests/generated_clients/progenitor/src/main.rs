//! Leads a custom CSR from its making to its end, by the client that progenitor makes from the OpenAPI document.

use std::{
    env,
    io::{self, Read as _, Write as _},
};

use csrd::{
    Client, Error,
    types::{
        CertificateStatus, CreatedCustomCsrs, CustomCertificateRequest, CustomCsr, CustomCsrEdit, CustomCsrRequest, CustomCsrStatus,
        ErrorResponse, KeyType,
    },
};
use reqwest::header::{AUTHORIZATION, HeaderMap};

mod csrd {
    progenitor::generate_api!(spec = "../../../openapi.yaml", interface = Builder, tags = Merged);
}

type Fault = Box<dyn std::error::Error>;

/// The code of the first error.
fn code<T>(refused: Result<T, Error<ErrorResponse>>) -> Result<i32, Fault> {
    match refused {
        Err(Error::ErrorResponse(answer)) => Ok(answer.errors.first().ok_or("no error")?.code),
        Err(other) => Err(other.into()),
        Ok(_) => Err("it was not refused".into()),
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Fault> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let [url, token, zone] = &arguments[..] else { return Err("give a URL, a token and a zone".into()) };
    let headers = HeaderMap::from_iter([(AUTHORIZATION, format!("Bearer {token}").parse()?)]);
    let client = Client::new_with_client(url, reqwest::Client::builder().default_headers(headers).build()?);

    let create = async |number: u32| -> Result<CustomCsr, Fault> {
        let request = CustomCsrRequest::builder()
            .country("US")
            .state("California")
            .locality("San Francisco")
            .organization("Acme Widgets, Inc.")
            .common_name("shop.acme-widgets.com")
            .sans(["shop.acme-widgets.com".parse()?])
            .name(Some(format!("shop {number}").parse()?))
            .key_type(KeyType::P256v1);
        let key = format!("from-rust-{number}");
        let made = client.zone_custom_csrs_create().zone_id(zone.as_str()).idempotency_key(key.as_str()).body(request).send().await?;
        match made.into_inner() {
            CreatedCustomCsrs::Response(made) => Ok(made.result),
            CreatedCustomCsrs::ListResponse(_) => Err("a set was made".into()),
        }
    };
    let mut made = create(0).await?;
    let id = made.id;
    while made.status == CustomCsrStatus::Pending {
        made = client.zone_custom_csrs_get().zone_id(zone.as_str()).custom_csr_id(id).prefer("wait=10").send().await?.into_inner().result;
    }
    // Whoever runs this has it signed.
    print!("{}", made.csr.ok_or_else(|| format!("failed: {:?}", made.error))?);
    io::stdout().flush()?;
    let mut chain = String::new();
    io::stdin().read_to_string(&mut chain)?;

    for number in 1..7 {
        create(number).await?;
    }
    let mut names = Vec::new();
    for page in 1.. {
        let rows = client.zone_custom_csrs_list().zone_id(zone.as_str()).page(page).per_page(5).send().await?.into_inner().result;
        if rows.is_empty() {
            break;
        }
        names.extend(rows.into_iter().map(|row| row.name));
    }
    println!("{}", names.len());

    // What is `None` is not sent, and so changes nothing: an empty name clears it.
    for name in ["renamed", ""] {
        let edit = CustomCsrEdit::builder().name(Some(name.parse()?));
        let edited = client.zone_custom_csrs_edit().zone_id(zone.as_str()).custom_csr_id(id).body(edit).send().await?.into_inner().result;
        println!("{}", edited.name.as_deref().unwrap_or("no name"));
    }

    let upload = CustomCertificateRequest::builder().certificate(chain).custom_csr_id(id);
    let uploaded = client.zone_custom_certificates_create().zone_id(zone.as_str()).body(upload).send().await?.into_inner().result;
    let certificate_id = uploaded.id.ok_or("not stored")?;
    assert_eq!(uploaded.status, CertificateStatus::Active);
    println!("{}", code(client.zone_custom_csrs_delete().zone_id(zone.as_str()).custom_csr_id(id).send().await)?);

    client.zone_custom_certificates_delete().zone_id(zone.as_str()).custom_certificate_id(certificate_id).send().await?;
    client.zone_custom_csrs_delete().zone_id(zone.as_str()).custom_csr_id(id).send().await?;
    println!("{}", code(client.zone_custom_csrs_get().zone_id(zone.as_str()).custom_csr_id(id).send().await)?);
    Ok(())
}
