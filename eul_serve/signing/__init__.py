"""Signatures over directories and bundles, and what is signed about a bundle. Keys work offline; nobody is asked.

keys.py              making a pair of keys, and what names a public key
directory.py         signing a directory, and checking it against a key or a chain of certificates
bundle_signature.py  signing a bundle, and checking it by its manifest alone
signed_files.py      which files of a bundle are signed, and whether a statement lists them
repeated.py          whether a key has signed a bundle already
trusted.py           a signer to believe, and who signed
chain.py             certificates that lead to an authority now
envelope.py          the file of a signature, in its one form
statement.py         the certificate's statement: what was shown of a bundle
certificate.py       a signed statement as a directory: writing and checking
"""

from eul_serve.signing.bundle_signature import sign_bundle, verify_bundle_signature
from eul_serve.signing.certificate import check_certificate, write_certificate
from eul_serve.signing.directory import Signer, Trust, sign_directory, verify_directory
from eul_serve.signing.keys import key_fingerprint, make_keys
from eul_serve.signing.statement import Statement
from eul_serve.signing.trusted import SignerIdentity, TrustedSigner

__all__ = [
    "Signer",
    "SignerIdentity",
    "Statement",
    "Trust",
    "TrustedSigner",
    "check_certificate",
    "key_fingerprint",
    "make_keys",
    "sign_bundle",
    "sign_directory",
    "verify_bundle_signature",
    "verify_directory",
    "write_certificate",
]
