//! Compound files ([MS-CFB]) where a ZIP archive should be: an encrypted DOCX, or an old Word document under the wrong
//! name. Must never read more of such a file than one buffer at a time.

use std::io::Read;

use super::{ExtractError, Source};

const MAGIC: [u8; 8] = [0xd0, 0xcf, 0x11, 0xe0, 0xa1, 0xb1, 0x1a, 0xe1];
/// The stream that holds an encrypted document ([MS-OFFCRYPTO] 2.3.4.4), as directories spell it.
const ENCRYPTED_PACKAGE: &str = "EncryptedPackage";

/// Fails where the file is a compound file.
pub fn refuse(source: &Source) -> Result<(), ExtractError> {
    let mut file = source.reader();
    let mut buffer = Vec::with_capacity(1 << 16);
    let mut read = |buffer: &mut Vec<u8>| {
        (&mut file).take(1 << 15).read_to_end(buffer).map_err(|error| ExtractError::from_io(source.path(), error))
    };
    read(&mut buffer)?;
    if !buffer.starts_with(&MAGIC) {
        return Ok(());
    }
    let name: Vec<u8> = ENCRYPTED_PACKAGE.encode_utf16().flat_map(u16::to_le_bytes).collect();
    loop {
        if buffer.windows(name.len()).any(|part| part == name) {
            return Err(ExtractError::Encrypted {
                path: source.path().to_owned(),
                scheme: "an Office password".to_owned(),
            });
        }
        // The end stays, for a name that lies on the border.
        buffer.drain(..buffer.len().saturating_sub(name.len()));
        if read(&mut buffer)? == 0 {
            return Err(ExtractError::corrupt(
                source.path(),
                "it is an old Office file (OLE), not one in a ZIP archive",
            ));
        }
    }
}
