//! Encryption of session cookies at rest, by ChaCha20-Poly1305 with a key of their own.
//!
//! The key is derived by HKDF-SHA256 from `VINOPS_COOKIE_KEY`, any text of at least 32 characters. The nonce is random
//! and is stored in front of the ciphertext. The source's name is authenticated data, so the session of one source
//! cannot replace that of another. Cookies encrypted with another key cannot be decrypted, and callers treat them as
//! missing. To change the key, it is therefore enough to change the variable.

use anyhow::{anyhow, ensure};
use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::hkdf::{HKDF_SHA256, Salt};
use ring::rand::{SecureRandom, SystemRandom};
use secrecy::{ExposeSecret, SecretString};
use std::fmt;

/// Minimum length of the key text, in bytes. `openssl rand -hex 32` returns 64.
pub const MIN_KEY_CHARS: usize = 32;
const HKDF_SALT: &[u8] = b"vinops cookie session 1";

/// Key that encrypts and decrypts session cookies. `Debug` does not print the key.
pub struct CookieKey(LessSafeKey);

impl fmt::Debug for CookieKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CookieKey")
    }
}

impl CookieKey {
    /// Derives the key from a text.
    ///
    /// # Errors
    /// Returns an error if the text is shorter than [`MIN_KEY_CHARS`]. The error does not contain the text.
    pub fn new(text: &SecretString) -> anyhow::Result<CookieKey> {
        let text = text.expose_secret();
        ensure!(
            text.len() >= MIN_KEY_CHARS,
            "VINOPS_COOKIE_KEY is shorter than {MIN_KEY_CHARS} characters\nhint: generate a key with `openssl rand -hex 32`"
        );
        let stretched = Salt::new(HKDF_SHA256, HKDF_SALT).extract(text.as_bytes());
        let key = stretched.expand(&[b"seal"], &CHACHA20_POLY1305).map(UnboundKey::from);
        Ok(CookieKey(LessSafeKey::new(key.map_err(|_| anyhow!("could not derive a key from VINOPS_COOKIE_KEY"))?)))
    }

    /// Encrypts the cookies of a source. Returns the nonce followed by the ciphertext.
    pub fn seal(&self, source: &str, open: &str) -> anyhow::Result<Vec<u8>> {
        let mut nonce = [0; NONCE_LEN];
        SystemRandom::new().fill(&mut nonce).map_err(|_| anyhow!("could not generate a nonce for the session"))?;
        let mut sealed = open.as_bytes().to_vec();
        self.0
            .seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), Aad::from(source.as_bytes()), &mut sealed)
            .map_err(|_| anyhow!("could not encrypt the session"))?;
        Ok([nonce.as_slice(), &sealed].concat())
    }

    /// Decrypts the cookies of a source. Returns `None` if they were encrypted with another key or for another source,
    /// or were changed.
    pub fn open(&self, source: &str, sealed: &[u8]) -> Option<SecretString> {
        let (nonce, sealed) = sealed.split_at_checked(NONCE_LEN)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
        let mut bytes = sealed.to_vec();
        let open = self.0.open_in_place(nonce, Aad::from(source.as_bytes()), &mut bytes).ok()?;
        Some(SecretString::from(std::str::from_utf8(open).ok()?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn test_key(text: &str) -> CookieKey {
        CookieKey::new(&SecretString::from(text)).unwrap()
    }

    #[test]
    fn what_was_sealed_is_opened_by_the_same_key_for_the_same_source_only() {
        let ours = test_key(&"k".repeat(32));
        let sealed = ours.seal("copart", "session=PLANTED").unwrap();
        assert!(!String::from_utf8_lossy(&sealed).contains("PLANTED"));
        assert_eq!(ours.open("copart", &sealed).unwrap().expose_secret(), "session=PLANTED");
        assert!(test_key(&"j".repeat(32)).open("copart", &sealed).is_none(), "another key");
        assert!(ours.open("iaai", &sealed).is_none(), "another source");
        for bit in 0..sealed.len() {
            let mut bent = sealed.clone();
            bent[bit] ^= 1;
            assert!(ours.open("copart", &bent).is_none(), "byte {bit} changed");
        }
        assert!(ours.open("copart", b"short").is_none());
        assert_ne!(sealed, ours.seal("copart", "session=PLANTED").unwrap(), "a nonce is used once");
    }

    #[test]
    fn a_short_key_is_refused_without_being_told() {
        let error = CookieKey::new(&SecretString::from("hunter2")).unwrap_err().to_string();
        assert!(error.contains("VINOPS_COOKIE_KEY") && !error.contains("hunter2"), "{error}");
    }
}
