#!/usr/bin/env python3
"""Has real cosign 2 and 3 sign artifacts in a real registry, and records what is in the registry then.

    record-signatures.py COSIGN2 COSIGN3 REGISTRY > host/src/trust/fixtures/recorded.json

COSIGN2 and COSIGN3 are executables (`reef-testbed tools` prints where they are), REGISTRY is the host and port of an empty
registry without TLS. The keys are made anew, so everything in the recording is of one run.
"""

import hashlib
import json
import os
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request

COSIGN = {"v2": sys.argv[1], "v3": sys.argv[2]}
REGISTRY = sys.argv[3]
REPOSITORY = "team/plugin"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
ACCEPT = ", ".join([MANIFEST, "application/vnd.oci.image.index.v1+json"])
WORK = tempfile.mkdtemp()
recorded = {"registry": REGISTRY, "repository": REPOSITORY, "keys": {}, "images": {}, "manifests": {}, "referrers": {}, "blobs": {}}


def sha256(data):
    return "sha256:" + hashlib.sha256(data).hexdigest()


def request(method, path, data=None, kind=None):
    url = path if path.startswith("http") else f"http://{REGISTRY}/v2/{REPOSITORY}/{path}"
    headers = {"Accept": ACCEPT} | ({"Content-Type": kind} if kind else {})
    try:
        with urllib.request.urlopen(urllib.request.Request(url, data, headers, method=method)) as answer:
            return answer.read(), answer.headers
    except urllib.error.HTTPError as error:
        if error.code == 404:
            return None, None
        raise


def blob(data):
    _, headers = request("POST", "blobs/uploads/")
    where = headers["Location"]
    join = "&" if "?" in where else "?"
    request("PUT", f"{where}{join}digest={sha256(data)}", data, "application/octet-stream")
    return {"digest": sha256(data), "size": len(data)}


def put(reference, manifest):
    data = json.dumps(manifest, separators=(",", ":")).encode()
    request("PUT", f"manifests/{reference or sha256(data)}", data, MANIFEST)
    return data


def push(name):
    component = f"the component {name}".encode()
    config = {"mediaType": "application/vnd.wasm.config.v0+json"} | blob(b"{}")
    layer = {"mediaType": "application/wasm"} | blob(component)
    data = put(name, {"schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": [layer]})
    recorded["images"][name] = {"manifest": data.decode(), "component": sha256(component)}
    return f"{REGISTRY}/{REPOSITORY}@{sha256(data)}"


def cosign(version, *words):
    env = os.environ | {"COSIGN_PASSWORD": "", "HOME": WORK}
    subprocess.run([COSIGN[version], *words], cwd=WORK, env=env, check=True, stdout=sys.stderr, stderr=sys.stderr)


def key(name, openssl=None):
    if openssl:
        subprocess.run(f"openssl genpkey {openssl} -out {name}.pem", shell=True, cwd=WORK, check=True, stderr=sys.stderr)
        cosign("v2", "import-key-pair", "--key", f"{name}.pem", "--output-key-prefix", name, "-y")
    else:
        cosign("v2", "generate-key-pair", "--output-key-prefix", name)
    recorded["keys"][name] = open(os.path.join(WORK, f"{name}.pub")).read()


# No public log: it is a private registry.
SIGN = {"v2": ["--tlog-upload=false"], "v3": ["--use-signing-config=false", "--tlog-upload=false"]}


def sign(version, name, image, verb="sign", *words):
    cosign(version, verb, "--key", f"{name}.key", "-y", "--allow-http-registry", *SIGN[version], *words, image)


def record(reference):
    data, headers = request("GET", f"manifests/{reference}")
    if data is None or reference in recorded["manifests"]:
        return
    recorded["manifests"][reference] = data.decode()
    manifest = json.loads(data)
    for layer in manifest.get("layers", []):
        content, _ = request("GET", f"blobs/{layer['digest']}")
        if not layer["mediaType"].endswith("wasm"):
            recorded["blobs"][layer["digest"]] = content.decode()
    for child in manifest.get("manifests", []):
        record(child["digest"])


def record_image(digest):
    tag = digest.replace(":", "-")
    record(f"{tag}.sig")
    listed, _ = request("GET", f"referrers/{digest}")
    if listed is None:
        listed, _ = request("GET", f"manifests/{tag}")
    children = [child["digest"] for child in json.loads(listed or "{}").get("manifests", [])]
    recorded["referrers"][digest] = children
    for child in children:
        record(child)


def copies(source, target):
    """What somebody does who has the signatures of one image, and wants to run another one."""
    source, target = (sha256(recorded["images"][name]["manifest"].encode()) for name in (source, target))
    tag, _ = request("GET", f"manifests/{source.replace(':', '-')}.sig")
    if tag:
        put(target.replace(":", "-") + ".sig", json.loads(tag))
    for child in recorded["referrers"][source]:
        manifest = json.loads(request("GET", f"manifests/{child}")[0])
        manifest["subject"]["digest"] = target
        manifest["subject"]["size"] = len(request("GET", f"manifests/{target}")[0])
        data = put(None, manifest)
        recorded["referrers"].setdefault(target, []).append(sha256(data))
        record(sha256(data))
    record(target.replace(":", "-") + ".sig")


for name, openssl in [("release", None), ("other", None), ("rsa", "-algorithm RSA -pkeyopt rsa_keygen_bits:2048")]:
    key(name, openssl)
open(os.path.join(WORK, "predicate.json"), "w").write('{"tested": true}')
for version in ["v2", "v3"]:
    for name in ["release", "other", "rsa"]:
        sign(version, name, push(f"{version}-{name}"))
    sign(version, "release", push(f"{version}-attested"), "attest", "--predicate", "predicate.json", "--type", "custom")
    both = push(f"{version}-twice")
    sign(version, "other", both)
    sign(version, "release", both)
    push(f"{version}-copied")
push("unsigned")
mixed = push("both-versions")
sign("v2", "other", mixed)
sign("v3", "release", mixed)
for name, image in recorded["images"].items():
    record_image(sha256(image["manifest"].encode()))
for version in ["v2", "v3"]:
    copies(f"{version}-release", f"{version}-copied")
json.dump(recorded, sys.stdout, indent=1, sort_keys=True)
