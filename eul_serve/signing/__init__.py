"""Signatures over directories, and what is signed about a bundle. Keys work offline; nothing asks the network.

keys.py         making a pair of keys
directory.py    signing a directory, and checking it against a key or a chain of certificates
statement.py    the certificate's statement: what was shown of a bundle
certificate.py  a signed statement as a directory: writing and checking
"""

from eul_serve.signing.certificate import check_certificate, write_certificate
from eul_serve.signing.directory import Signer, Trust, sign_directory, verify_directory
from eul_serve.signing.keys import make_keys
from eul_serve.signing.statement import Statement

__all__ = [
    "Signer",
    "Statement",
    "Trust",
    "check_certificate",
    "make_keys",
    "sign_directory",
    "verify_directory",
    "write_certificate",
]
