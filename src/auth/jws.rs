//! Signed texts: three parts in base64, of which the last signs the first two.
//!
//! Knows the form and the algorithm, and no claim. One algorithm is accepted, whatever a header says.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::hmac;
use serde::Deserialize;
use serde::de::IgnoredAny;

/// The only algorithm.
const HS256: &str = "HS256";

const NO_OBJECT: &str = "header or claims are malformed";

/// A JSON text that may be an object; serde takes a list for one.
fn object(json: &[u8]) -> Result<&[u8], &'static str> {
    if json.trim_ascii_start().starts_with(b"{") { Ok(json) } else { Err(NO_OBJECT) }
}

/// A secret that signs.
pub(super) struct Key(hmac::Key);

#[derive(Deserialize)]
struct Header {
    alg: String,
    crit: Option<IgnoredAny>,
}

impl Key {
    pub(super) fn new(secret: &str) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes()))
    }

    /// The content of a text that this key has signed.
    ///
    /// # Errors
    /// The reason for which it is not taken.
    pub(super) fn open(&self, text: &str) -> Result<Vec<u8>, &'static str> {
        const MALFORMED: &str = "it is malformed";
        let (signed, signature) = text.rsplit_once('.').ok_or(MALFORMED)?;
        let (header, content) = signed.split_once('.').ok_or(MALFORMED)?;
        let bytes = |part: &str| URL_SAFE_NO_PAD.decode(part).map_err(|_| MALFORMED);
        let header: Header = serde_json::from_slice(object(&bytes(header)?)?).map_err(|_| NO_OBJECT)?;
        if header.alg != HS256 {
            return Err("the algorithm is not HS256");
        }
        hmac::verify(&self.0, signed.as_bytes(), &bytes(signature)?).map_err(|_| "the signature is wrong")?;
        if header.crit.is_some() {
            return Err("it demands extensions that are not supported");
        }
        let content = bytes(content)?;
        object(&content)?;
        Ok(content)
    }

    /// Signs a content, which is JSON.
    pub(super) fn seal(&self, content: &[u8]) -> String {
        let header = format!(r#"{{"typ":"JWT","alg":"{HS256}"}}"#);
        let mut text = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(content));
        let signature = hmac::sign(&self.0, text.as_bytes());
        text.push('.');
        URL_SAFE_NO_PAD.encode_string(signature.as_ref(), &mut text);
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The first example of RFC 7515, appendix A.1.
    #[test]
    fn a_published_example_is_opened() {
        let secret = "AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow";
        let key = Key(hmac::Key::new(hmac::HMAC_SHA256, &URL_SAFE_NO_PAD.decode(secret).unwrap()));
        let text = "eyJ0eXAiOiJKV1QiLA0KICJhbGciOiJIUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6\
                    Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ.dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
        let content = key.open(text).unwrap();
        assert!(content.starts_with(br#"{"iss":"joe","#), "{}", String::from_utf8_lossy(&content));
        assert_eq!(key.open(&text.replace("dBjf", "dBjg")), Err("the signature is wrong"));
    }

    #[test]
    fn a_header_or_content_that_is_no_object_is_refused() {
        let signed = |header: &str, content: &str| {
            let text = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(content));
            let signature = hmac::sign(&Key::new("a").0, text.as_bytes());
            Key::new("a").open(&format!("{text}.{}", URL_SAFE_NO_PAD.encode(signature)))
        };
        assert!(signed(r#"{"alg":"HS256"}"#, "{}").is_ok());
        assert_eq!(signed(r#"["HS256",null]"#, "{}"), Err(NO_OBJECT));
        assert_eq!(signed(r#"{"alg":"HS256"}"#, "[]"), Err(NO_OBJECT));
    }

    #[test]
    fn what_is_sealed_is_opened_by_the_same_key_alone() {
        let text = Key::new("a").seal(b"{}");
        assert_eq!(Key::new("a").open(&text).as_deref(), Ok(&b"{}"[..]));
        assert_eq!(Key::new("b").open(&text), Err("the signature is wrong"));
    }
}
