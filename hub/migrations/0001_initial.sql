-- Moments are microseconds since 1970 UTC; documents are JSON text.
-- Wide columns stand last: reading the narrow ones then never follows overflow pages.

CREATE TABLE settings (
    key {text} PRIMARY KEY,
    value {text} NOT NULL
);

CREATE TABLE devices (
    id {text} PRIMARY KEY,
    profile {text} NOT NULL,
    state {text} NOT NULL,
    connected BOOLEAN NOT NULL,
    last_seen BIGINT,
    enrolled_at BIGINT NOT NULL,
    agent_version {text} NOT NULL,
    reported_revision BIGINT NOT NULL,
    tags {text} NOT NULL,
    reported {text} NOT NULL
);

CREATE TABLE claims (
    secret_hash {text} PRIMARY KEY,
    device_id {text} NOT NULL,
    tags {text} NOT NULL,
    expires_at BIGINT NOT NULL,
    used_at BIGINT
);

CREATE TABLE tokens (
    secret_hash {text} PRIMARY KEY,
    name {text} NOT NULL,
    role {text} NOT NULL,
    created_at BIGINT NOT NULL,
    expires_at BIGINT NOT NULL
);

-- The newest version ever given out per kind and name, so that none comes back after a deletion.
CREATE TABLE version_counters (
    kind {text} NOT NULL,
    name {text} NOT NULL,
    newest BIGINT NOT NULL,
    PRIMARY KEY (kind, name)
);

CREATE TABLE models (
    name {text} NOT NULL,
    version BIGINT NOT NULL,
    digest {text} NOT NULL,
    size BIGINT NOT NULL,
    filename {text} NOT NULL,
    created_at BIGINT NOT NULL,
    framework {text} NOT NULL,
    description {text} NOT NULL,
    tags {text} NOT NULL,
    golden {text},
    PRIMARY KEY (name, version)
);

CREATE TABLE images (
    name {text} NOT NULL,
    version BIGINT NOT NULL,
    state {text} NOT NULL,
    models {text} NOT NULL,
    created_at BIGINT NOT NULL,
    architecture {text} NOT NULL,
    digest {text},
    reference {text} NOT NULL,
    layers {text} NOT NULL,
    progress {text} NOT NULL,
    error_code {text} NOT NULL,
    error {text} NOT NULL,
    error_hint {text} NOT NULL,
    PRIMARY KEY (name, version)
);

CREATE TABLE deployments (
    id {text} PRIMARY KEY,
    condition {text} NOT NULL,
    priority BIGINT NOT NULL,
    created_at BIGINT NOT NULL,
    policy {text} NOT NULL,
    labels {text} NOT NULL,
    models {text} NOT NULL,
    state {text} NOT NULL,
    reason {text} NOT NULL,
    manifest {text} NOT NULL
);

CREATE TABLE members (
    deployment_id {text} NOT NULL REFERENCES deployments (id),
    device_id {text} NOT NULL REFERENCES devices (id),
    state {text} NOT NULL,
    since BIGINT NOT NULL,
    wave BIGINT,
    version BIGINT NOT NULL,
    code {text} NOT NULL,
    message {text} NOT NULL,
    PRIMARY KEY (deployment_id, device_id)
);

CREATE INDEX members_by_device ON members (device_id, deployment_id);

CREATE TABLE desired_states (
    device_id {text} PRIMARY KEY REFERENCES devices (id),
    epoch BIGINT NOT NULL,
    version BIGINT NOT NULL,
    deployment_id {text} NOT NULL,
    content_digest {text} NOT NULL,
    issued_at BIGINT NOT NULL,
    envelope {blob} NOT NULL
);

CREATE TABLE telemetry (
    id {serial},
    device {text} NOT NULL,
    epoch {text} NOT NULL,
    seq BIGINT NOT NULL,
    module {text} NOT NULL,
    output {text} NOT NULL,
    at BIGINT NOT NULL,
    received_at BIGINT NOT NULL,
    properties {text} NOT NULL,
    body {blob} NOT NULL,
    UNIQUE (device, epoch, seq)
);

CREATE INDEX telemetry_by_device ON telemetry (device, id);

-- `digest` is the SHA-256 of `body`: how a message sent again is known.
CREATE TABLE quarantine (
    id {serial},
    device {text} NOT NULL,
    received_at BIGINT NOT NULL,
    reason {text} NOT NULL,
    digest {text} NOT NULL,
    body {blob} NOT NULL,
    UNIQUE (device, digest)
);

CREATE INDEX quarantine_by_device ON quarantine (device, id);

CREATE TABLE oci_manifests (
    repository {text} NOT NULL,
    digest {text} NOT NULL,
    media_type {text} NOT NULL,
    subject {text},
    artifact_type {text} NOT NULL,
    annotations {text} NOT NULL,
    content {blob} NOT NULL,
    PRIMARY KEY (repository, digest)
);

CREATE INDEX oci_manifests_by_subject ON oci_manifests (repository, subject)
WHERE subject IS NOT NULL;

CREATE TABLE oci_tags (
    repository {text} NOT NULL,
    tag {text} NOT NULL,
    digest {text} NOT NULL,
    PRIMARY KEY (repository, tag),
    FOREIGN KEY (repository, digest) REFERENCES oci_manifests (repository, digest)
);

CREATE INDEX oci_tags_by_digest ON oci_tags (repository, digest);

CREATE TABLE oci_blobs (
    repository {text} NOT NULL,
    digest {text} NOT NULL,
    PRIMARY KEY (repository, digest)
);

CREATE INDEX oci_blobs_by_digest ON oci_blobs (digest, repository);
