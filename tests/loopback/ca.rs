//! A throwaway hub's CA, in the hands of whoever issues other certificates than the hub does.

use std::time::Duration;

use federation_hub::transport::{Credentials, PemSource};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose, RevocationReason,
    RevokedCertParams, SanType, SerialNumber, date_time_ymd,
};

/// A certificate and its key.
pub type Pair = (PemSource, PemSource);

/// A CA.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    /// Its own certificate, as PEM; empty for a throwaway hub's, whose credentials have it.
    pub pem: String,
}

fn ca_params(name: &str, serial: u64) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.serial_number = Some(SerialNumber::from(serial));
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

impl Authority {
    /// A throwaway hub's.
    pub fn of(credentials: &Credentials) -> Self {
        let key = KeyPair::from_pem(&credentials.ca_key_pem).unwrap();
        Self { issuer: Issuer::new(ca_params("federation-hub throwaway CA", 1), key), pem: String::new() }
    }

    /// Another one.
    pub fn root(name: &str) -> Self {
        let (params, key) = (ca_params(name, 1), KeyPair::generate().unwrap());
        let pem = params.self_signed(&key).unwrap().pem();
        Self { issuer: Issuer::new(params, key), pem }
    }

    /// One below this.
    pub fn intermediate(&self, name: &str, serial: u64) -> Self {
        let (params, key) = (ca_params(name, serial), KeyPair::generate().unwrap());
        let pem = params.signed_by(&key, &self.issuer).unwrap().pem();
        Self { issuer: Issuer::new(params, key), pem }
    }

    /// A certificate for agents, with these URIs among its names, and its key; both PEM.
    pub fn certificate(&self, serial: u64, uris: &[&str]) -> (String, String) {
        self.changed_certificate(serial, uris, |_| {})
    }

    /// The same, with something changed.
    fn changed_certificate(
        &self,
        serial: u64,
        uris: &[&str],
        change: impl FnOnce(&mut CertificateParams),
    ) -> (String, String) {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, "an agent");
        params.use_authority_key_identifier_extension = true;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        params.serial_number = Some(SerialNumber::from(serial));
        params.subject_alt_names = uris.iter().map(|uri| SanType::URI((*uri).try_into().unwrap())).collect();
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        (certificate.pem(), key.serialize_pem())
    }

    /// Its list of certificates that it has revoked, as PEM.
    pub fn list(&self, serials: &[u64]) -> String {
        let revoked = |serial: &u64| RevokedCertParams {
            serial_number: SerialNumber::from(*serial),
            revocation_time: date_time_ymd(2026, 1, 1),
            reason_code: Some(RevocationReason::KeyCompromise),
            invalidity_date: None,
        };
        let list = CertificateRevocationListParams {
            this_update: date_time_ymd(2026, 1, 1),
            next_update: date_time_ymd(2096, 1, 1),
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: serials.iter().map(revoked).collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        list.signed_by(&self.issuer).unwrap().pem().unwrap()
    }
}

/// A certificate of a throwaway hub's CA for agents, with these URIs among its names.
pub fn certificate(credentials: &Credentials, serial: u64, uris: &[&str]) -> Pair {
    let (certificate, key) = Authority::of(credentials).certificate(serial, uris);
    (PemSource::Text(certificate), PemSource::Text(key))
}

/// One that names nobody, whose last second is this one, in seconds since the epoch.
pub fn short_lived(credentials: &Credentials, last_second: u64) -> Pair {
    let (certificate, key) = Authority::of(credentials).changed_certificate(1, &[], |params| {
        params.not_after = date_time_ymd(1970, 1, 1) + Duration::from_secs(last_second);
    });
    (PemSource::Text(certificate), PemSource::Text(key))
}

/// The list of a throwaway hub's CA, as PEM.
pub fn revocation_list(credentials: &Credentials, serials: &[u64]) -> String {
    Authority::of(credentials).list(serials)
}
