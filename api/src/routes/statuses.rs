//! The statuses that the errors of each operation can have, for the document.

use crate::http::envelope::Statuses;

/// Declares them: those of its own, and those that every operation has.
macro_rules! statuses {
    ($($name:ident: [$($status:literal $description:literal),* $(,)?])*) => { $(
        #[doc = concat!("The errors of an operation: ", stringify!($name), ".")]
        pub struct $name;
        impl Statuses for $name {
            const LIST: &'static [(u16, &'static str)] = &[
                $(($status, $description),)*
                (401, "The token is not accepted: 1000 to 1005."),
                (405, "Method not allowed: 7001."),
                (413, "The body is larger than 64 KiB: 1467."),
                (429, "Too many requests: 1470."),
                (500, "A fault of the service: 1500."),
                (503, "The database cannot be reached, or a part of the service is not ready: 1471."),
            ];
        }
    )* };
}

statuses! {
    CreateErrors: [
        400 "The request is wrong: 1400 to 1402, 1405 to 1417, 1460 to 1464. Several faults are reported together.",
        403 "No access (1404), no quota allocated (1403), or the quota is used up (1465).",
        404 "No such route (7000), or the custom CSR that the Idempotency-Key made was deleted (1419).",
        422 "The Idempotency-Key was used before with another body: 1466.",
    ]
    ListErrors: [
        400 "The request is wrong: 1401, 1402, 1464.",
        403 "No access: 1404.",
        404 "No such route: 7000.",
    ]
    OneErrors: [
        400 "The request is wrong: 1401, 1402, 1418.",
        403 "No access: 1404.",
        404 "No such custom CSR in this scope (1419), or no such route (7000).",
    ]
    EditErrors: [
        400 "The request is wrong: 1400 to 1402, 1418, 1461, 1462. Several faults are reported together.",
        403 "No access: 1404.",
        404 "No such custom CSR in this scope (1419), or no such route (7000).",
    ]
    DeleteErrors: [
        400 "The request is wrong: 1401, 1402, 1418.",
        403 "No access: 1404.",
        404 "No such custom CSR in this scope (1419), or no such route (7000).",
        409 "An active certificate uses the custom CSR: 1420.",
    ]
    RekeyErrors: [
        400 "The request is wrong: 1400 to 1402, 1417, 1418, 1461, 1462, 1464, or a SAN of the old custom CSR is no longer accepted: 1412 to 1416. Several faults are reported together.",
        403 "No access (1404), no quota allocated (1403), or the quota is used up (1465).",
        404 "No such custom CSR in this scope (1419), or no such route (7000).",
        409 "The custom CSR is pending: 1474.",
        422 "The Idempotency-Key was used before for another custom CSR or with another body: 1466.",
    ]
    QuotaErrors: [
        400 "The request is wrong: 1401, 1402.",
        403 "No access: 1404.",
        404 "No such route: 7000.",
    ]
    UploadErrors: [
        400 "The request is wrong: 1400 to 1402, 1464, or the certificate is refused: 1426, 1427, 1429, 1430, 1444, 1445, 1447, 1472, 1473, 1475 to 1479.",
        403 "No access: 1404.",
        404 "No such custom CSR in this zone or its account (1431), or no such route (7000).",
        409 "The custom CSR is not active (1474), the certificate is stored already (1482), or the custom CSR has as many as it may have (1483).",
    ]
    ReplaceErrors: [
        400 "The request is wrong: 1400 to 1402, 1464, 1480, or the certificate is refused: 1426, 1427, 1429, 1430, 1444, 1445, 1447, 1473, 1475 to 1479.",
        403 "No access: 1404.",
        404 "No such custom certificate (1481), no such custom CSR in this zone or its account (1431), or no such route (7000).",
        409 "The custom CSR is not active (1474), the certificate is stored already (1482), or the custom CSR has as many as it may have (1483).",
    ]
    OneCertificateErrors: [
        400 "The request is wrong: 1401, 1402, 1480.",
        403 "No access: 1404.",
        404 "No such custom certificate in this zone, or for a custom CSR of this account (1481), or no such route (7000).",
    ]
}
