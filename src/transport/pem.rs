//! Certificates and keys, as files or as text.

use std::borrow::Cow;
use std::fmt;
use std::path::PathBuf;

use quinn::rustls::pki_types::pem::PemObject;
use quinn::rustls::pki_types::{
    CertificateDer, CertificateRevocationListDer, PrivateKeyDer, SubjectPublicKeyInfoDer, pem,
};
use thiserror::Error;

/// Where a certificate or a key comes from, in PEM form.
#[derive(Clone, PartialEq, Eq)]
pub enum PemSource {
    /// A file, read anew for each use, so that a renewed certificate is picked up.
    Path(PathBuf),
    /// The PEM text itself.
    Text(String),
}

/// Never shows the text: it may be a private key.
impl fmt::Debug for PemSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Path(path) => f.debug_tuple("Path").field(path).finish(),
            Self::Text(_) => f.write_str("Text(..)"),
        }
    }
}

impl fmt::Display for PemSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Path(path) => write!(f, "the file {}", path.display()),
            Self::Text(_) => f.write_str("the text given"),
        }
    }
}

/// What a PEM source was to hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PemRole {
    /// The certificate that this side shows, followed by any intermediate ones.
    Certificate,
    /// The private key of that certificate.
    Key,
    /// The CA, or several, that the other side's certificate is checked against.
    Ca,
    /// The public key that tokens are verified with.
    PublicKey,
    /// Certificates that are not to be trusted any more.
    Crl,
}

impl fmt::Display for PemRole {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Certificate => "certificate",
            Self::Key => "private key",
            Self::Ca => "CA certificate",
            Self::PublicKey => "public key",
            Self::Crl => "revocation list",
        })
    }
}

/// A certificate or key that could not be loaded.
#[derive(Debug, Error)]
pub enum PemError {
    /// A certificate without extensions, so that it names no host and no purpose: issue it anew.
    #[error(
        "the certificate in {source_name} is of X.509 version 1, which names neither hosts nor purposes, and is trusted \
         nowhere: issue it anew with extensions (openssl x509 -req … -extfile …, as the README shows)"
    )]
    Version1 {
        /// Where it came from.
        source_name: String,
    },
    /// The file is missing or unreadable: correct the path, or the permissions.
    #[error("cannot read the {role} from the file {}: {cause}", path.display())]
    Read {
        /// What it was to hold.
        role: PemRole,
        /// The file.
        path: PathBuf,
        /// What the system said.
        cause: std::io::Error,
    },
    /// No PEM section of the right kind: another file, or DER instead of PEM.
    #[error("no {role} in {source_name}: it must be PEM text with a section `-----BEGIN {section}-----`")]
    Missing {
        /// What it was to hold.
        role: PemRole,
        /// Which file.
        source_name: String,
        /// The section expected.
        section: &'static str,
    },
    /// A damaged PEM section: copy the file again.
    #[error("the {role} in {source_name} is damaged: {cause}")]
    Damaged {
        /// What it was to hold.
        role: PemRole,
        /// Which file.
        source_name: String,
        /// What is wrong.
        cause: String,
    },
}

impl PemSource {
    /// The certificates, at least one.
    pub fn load_certificates(&self, role: PemRole) -> Result<Vec<CertificateDer<'static>>, PemError> {
        let certificates = self.load_all(role, "CERTIFICATE")?;
        // A CA may be: that it is trusted, whoever configures it says.
        if role == PemRole::Certificate && certificates.iter().any(is_version_1) {
            return Err(PemError::Version1 { source_name: self.to_string() });
        }
        Ok(certificates)
    }

    /// The lists of revoked certificates, at least one.
    pub fn load_crls(&self) -> Result<Vec<CertificateRevocationListDer<'static>>, PemError> {
        self.load_all(PemRole::Crl, "X509 CRL")
    }

    /// The first private key: PKCS#8, PKCS#1 or SEC1, not encrypted.
    pub fn load_key(&self) -> Result<PrivateKeyDer<'static>, PemError> {
        self.load_one(PemRole::Key, "PRIVATE KEY")
    }

    /// The first public key, as DER (`SubjectPublicKeyInfo`).
    pub fn load_public_key(&self) -> Result<Vec<u8>, PemError> {
        let key: SubjectPublicKeyInfoDer<'static> = self.load_one(PemRole::PublicKey, "PUBLIC KEY")?;
        Ok(key.to_vec())
    }

    fn load_all<T: PemObject>(&self, role: PemRole, section: &'static str) -> Result<Vec<T>, PemError> {
        let text = self.read(role)?;
        let found: Result<Vec<_>, _> = T::pem_slice_iter(&text).collect();
        match found {
            Ok(found) if found.is_empty() => Err(self.missing(role, section)),
            Ok(found) => Ok(found),
            Err(error) => Err(self.damaged(role, &error)),
        }
    }

    fn load_one<T: PemObject>(&self, role: PemRole, section: &'static str) -> Result<T, PemError> {
        let text = self.read(role)?;
        T::from_pem_slice(&text).map_err(|error| match error {
            pem::Error::NoItemsFound => self.missing(role, section),
            error => self.damaged(role, &error),
        })
    }

    fn read(&self, role: PemRole) -> Result<Cow<'_, [u8]>, PemError> {
        match self {
            Self::Text(text) => Ok(without_mark(Cow::Borrowed(text.as_bytes()))),
            Self::Path(path) => std::fs::read(path)
                .map(|bytes| without_mark(Cow::Owned(bytes)))
                .map_err(|cause| PemError::Read { role, path: path.clone(), cause }),
        }
    }

    fn missing(&self, role: PemRole, section: &'static str) -> PemError {
        PemError::Missing { role, source_name: self.to_string(), section }
    }

    fn damaged(&self, role: PemRole, error: &pem::Error) -> PemError {
        // What the library says of a line quotes that line, and it may be of a key.
        let cause = match error {
            pem::Error::MissingSectionEnd { .. } => "a section has no end line",
            pem::Error::IllegalSectionStart { .. } => "a section's first line is malformed",
            pem::Error::Base64Decode(_) => "a section is not base64",
            _ => "a section cannot be read",
        };
        PemError::Damaged { role, source_name: self.to_string(), cause: cause.to_owned() }
    }
}

/// Whether a certificate is of the version that knows no extensions.
fn is_version_1(certificate: &CertificateDer<'static>) -> bool {
    matches!(webpki::EndEntityCert::try_from(certificate), Err(webpki::Error::UnsupportedCertVersion))
}

/// A text without the mark that says how it is encoded, which programs on Windows put before it. One in UTF-16, as
/// PowerShell writes them, as UTF-8.
pub fn without_mark(bytes: Cow<'_, [u8]>) -> Cow<'_, [u8]> {
    let utf16 = |of: fn([u8; 2]) -> u16| {
        let units = bytes.chunks_exact(2).skip(1).map(|pair| of([pair[0], pair[1]]));
        let text: String =
            char::decode_utf16(units).map(|one| one.unwrap_or(char::REPLACEMENT_CHARACTER)).collect();
        Cow::Owned(text.into_bytes())
    };
    match &*bytes {
        [0xef, 0xbb, 0xbf, text @ ..] => Cow::Owned(text.to_vec()),
        [0xff, 0xfe, ..] => utf16(u16::from_le_bytes),
        [0xfe, 0xff, ..] => utf16(u16::from_be_bytes),
        _ => bytes,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transport::Credentials;

    #[test]
    fn loads_from_a_file_and_from_text() {
        let credentials = Credentials::generate([1; 32]).unwrap();
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), &credentials.hub_cert_pem).unwrap();
        let from_file = PemSource::Path(file.path().to_owned()).load_certificates(PemRole::Ca).unwrap();
        let from_text = PemSource::Text(credentials.hub_cert_pem).load_certificates(PemRole::Ca).unwrap();
        assert_eq!(from_file, from_text);
        PemSource::Text(credentials.hub_key_pem).load_key().unwrap();
    }

    #[test]
    fn errors_name_the_file_and_what_it_was_to_hold() {
        let missing = PemSource::Path("/nowhere/agent.key".into());
        let error = missing.load_key().unwrap_err().to_string();
        assert!(error.contains("private key") && error.contains("/nowhere/agent.key"), "{error}");
        let error = missing.load_certificates(PemRole::Ca).unwrap_err().to_string();
        assert!(error.contains("CA certificate"), "{error}");
        let error = PemSource::Text("hello".into()).load_key().unwrap_err().to_string();
        assert!(error.contains("BEGIN PRIVATE KEY"), "{error}");
        let error = PemSource::Text("hello".into()).load_certificates(PemRole::Certificate).unwrap_err();
        assert!(matches!(error, PemError::Missing { role: PemRole::Certificate, .. }));
    }

    #[test]
    fn a_mark_of_the_encoding_is_passed_over() {
        let pem = Credentials::generate([1; 32]).unwrap().hub_cert_pem;
        let plain = PemSource::Text(pem.clone()).load_certificates(PemRole::Certificate).unwrap();
        let utf16 = |of: fn(u16) -> [u8; 2]| {
            "\u{feff}".encode_utf16().chain(pem.encode_utf16()).flat_map(of).collect()
        };
        let files: [Vec<u8>; 3] =
            [format!("\u{feff}{pem}").into_bytes(), utf16(u16::to_le_bytes), utf16(u16::to_be_bytes)];
        for bytes in files {
            let file = tempfile::NamedTempFile::new().unwrap();
            std::fs::write(file.path(), bytes).unwrap();
            let loaded =
                PemSource::Path(file.path().to_owned()).load_certificates(PemRole::Certificate).unwrap();
            assert_eq!(loaded, plain);
        }
        let text = PemSource::Text(format!("\u{feff}{pem}"));
        assert_eq!(text.load_certificates(PemRole::Certificate).unwrap(), plain);
    }

    /// As `openssl x509 -req` makes them where it is given no extensions.
    const VERSION_1: &str = "-----BEGIN CERTIFICATE-----\n\
        MIIBFjCBvgIUdE1vadYZ7I7m81dUSmRAN1sAYZMwCgYIKoZIzj0EAwIwDTELMAkG\n\
        A1UEAwwCY2EwIBcNMjYxMjAxMDk0NzQzWhgPMjEyNjExMDcwOTQ3NDNaMA4xDDAK\n\
        BgNVBAMMA2h1YjBZMBMGByqGSM49AgEGCCqGSM49AwEHA0IABBLJVmmC3jDvVzOM\n\
        Ux/wU17CXuNFY9XhjzWZ2HabmViduUkf996gFUy4XegZP7+1M0/58jcbwHz/9AA1\n\
        zxXtaCAwCgYIKoZIzj0EAwIDRwAwRAIgPamWlyov51BAOEUrB5wmRISB8Y9HdSjP\n\
        TSUP9ETGo2ECIATiSEQeJ68ruOiT3iOOHF0kvKyvk2HXEAdjIYy8+oSn\n\
        -----END CERTIFICATE-----";

    #[test]
    fn a_certificate_of_version_1_is_named_and_a_ca_may_be_one() {
        let source = PemSource::Text(VERSION_1.into());
        let error = source.load_certificates(PemRole::Certificate).unwrap_err();
        assert!(matches!(error, PemError::Version1 { .. }), "{error}");
        assert!(error.to_string().contains("-extfile"), "{error}");
        source.load_certificates(PemRole::Ca).unwrap();
    }

    #[test]
    fn neither_errors_nor_debug_output_show_a_key() {
        let text = "-----BEGIN PRIVATE KEY-----\nSECRET!\n-----END PRIVATE KEY-----\n";
        let source = PemSource::Text(text.into());
        let error = source.load_key().unwrap_err();
        assert!(matches!(error, PemError::Damaged { .. }));
        assert!(!format!("{error}{error:?}{source}{source:?}").contains("SECRET"));
    }
}
