//! What a text's shape must be, from PostgreSQL's own scanner; and damaged texts to ask about. Shared with the fuzzer.

use lockgate_masking::sql::shape;
use pg_query::protobuf::Token;

/// The shape, put together from PostgreSQL's tokens. `None`: it refuses the text.
pub fn expected(text: &str) -> Option<Vec<u8>> {
    let mut shape = Vec::new();
    for token in pg_query::scan_tokens(text).ok()? {
        let source = text.as_bytes().get(token.start as usize..token.end as usize)?;
        match Token::try_from(token.token).ok()? {
            Token::SqlComment | Token::CComment => {}
            Token::Sconst => shape.push(1),
            Token::Iconst => shape.push(2),
            Token::Fconst => shape.push(3),
            Token::Bconst => shape.push(4),
            Token::Xconst => shape.push(5),
            // Never given a shape: nothing that could be equal.
            Token::Uident | Token::Usconst => shape.push(0xFF),
            _ if source.len() == 1 && b",()[].;".contains(&source[0]) => shape.push(source[0]),
            _ => {
                let quoted = source.starts_with(b"\"");
                shape.extend(source.iter().map(|byte| if quoted { *byte } else { byte.to_ascii_lowercase() }));
                shape.push(b' ');
            }
        }
    }
    Some(shape)
}

/// Panics where the two disagree. Answers whether our own had an answer at all.
pub fn compare(text: &str) -> bool {
    let mut room = vec![0; 2 * text.len() + 8];
    let Some(ours) = shape(text.as_bytes(), &mut room) else { return false };
    let theirs = expected(text);
    assert!(
        theirs.as_deref() == Some(ours),
        "{text:?}\n ours   {:?}\n theirs {:?}\n {:?}",
        String::from_utf8_lossy(ours),
        theirs.as_deref().map(String::from_utf8_lossy),
        pg_query::scan_tokens(text)
    );
    true
}
