BEGIN TRANSACTION;
CREATE TABLE claims (
    secret_hash TEXT PRIMARY KEY,
    device_id TEXT NOT NULL,
    tags TEXT NOT NULL,
    expires_at BIGINT NOT NULL,
    used_at BIGINT
);
INSERT INTO "claims" VALUES('c1a1','camera-1','{"site":"north","deep":{"list":[1,1.5,true,null,"é"]}}',1893553445678901,1893553445678901);
CREATE TABLE deployments (
    id TEXT PRIMARY KEY,
    condition TEXT NOT NULL,
    priority BIGINT NOT NULL,
    created_at BIGINT NOT NULL,
    policy TEXT NOT NULL,
    labels TEXT NOT NULL,
    models TEXT NOT NULL,
    state TEXT NOT NULL,
    reason TEXT NOT NULL,
    manifest TEXT NOT NULL
);
INSERT INTO "deployments" VALUES('all','*',10,1893553445678901,'{"waves":[{"count":2,"share":null},{"count":null,"share":0.5}],"soak_seconds":60.0,"min_success":0.9,"silent_seconds":120.0}','{"a":"b"}','["digits:1"]','aborted','too many failed','{}');
CREATE TABLE desired_states (
    device_id TEXT PRIMARY KEY REFERENCES devices (id),
    epoch BIGINT NOT NULL,
    version BIGINT NOT NULL,
    deployment_id TEXT NOT NULL,
    content_digest TEXT NOT NULL,
    issued_at BIGINT NOT NULL,
    envelope BLOB NOT NULL
);
INSERT INTO "desired_states" VALUES('camera-1',2,9,'all','sha256:ed7002b439e9ac845f22357d822bac1444730fbdb6016d3ec9432297b9ec9f73',1893553445678901,X'00FF');
CREATE TABLE devices (
    id TEXT PRIMARY KEY,
    profile TEXT NOT NULL,
    state TEXT NOT NULL,
    connected BOOLEAN NOT NULL,
    last_seen BIGINT,
    enrolled_at BIGINT NOT NULL,
    agent_version TEXT NOT NULL,
    reported_revision BIGINT NOT NULL,
    tags TEXT NOT NULL,
    reported TEXT NOT NULL
);
INSERT INTO "devices" VALUES('camera-1','generic','enrolled',1,1893553445678901,1893553445678901,'1.2.3',7,'{"site":"north","deep":{"list":[1,1.5,true,null,"é"]}}','{"site":"north","deep":{"list":[1,1.5,true,null,"é"]}}');
CREATE TABLE images (
    name TEXT NOT NULL,
    version BIGINT NOT NULL,
    state TEXT NOT NULL,
    models TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    architecture TEXT NOT NULL,
    digest TEXT,
    reference TEXT NOT NULL,
    layers TEXT NOT NULL,
    progress TEXT NOT NULL,
    error_code TEXT NOT NULL,
    error TEXT NOT NULL,
    error_hint TEXT NOT NULL,
    PRIMARY KEY (name, version)
);
INSERT INTO "images" VALUES('digits',1,'failed','["digits:1"]',1893553445678901,'arm64','sha256:6105d6cc76af400325e94d588ce511be5bfdbb73b437dc51eca43917d7a43e3d','hub/digits','[{"kind":"base","digest":"sha256:cae662172fd450bb0cd710a769079c05bfc5d8e35efa6576edc7d0377afdd4a2","size":3}]','done','build-failed','no wheel','pin it');
CREATE TABLE members (
    deployment_id TEXT NOT NULL REFERENCES deployments (id),
    device_id TEXT NOT NULL REFERENCES devices (id),
    state TEXT NOT NULL,
    since BIGINT NOT NULL,
    wave BIGINT,
    version BIGINT NOT NULL,
    code TEXT NOT NULL,
    message TEXT NOT NULL,
    PRIMARY KEY (deployment_id, device_id)
);
INSERT INTO "members" VALUES('all','camera-1','failed',1893553445678901,0,4,'probe-failed','no answer');
CREATE TABLE models (
    name TEXT NOT NULL,
    version BIGINT NOT NULL,
    digest TEXT NOT NULL,
    size BIGINT NOT NULL,
    filename TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    framework TEXT NOT NULL,
    description TEXT NOT NULL,
    tags TEXT NOT NULL,
    golden TEXT,
    PRIMARY KEY (name, version)
);
INSERT INTO "models" VALUES('digits',1,'sha256:9372c470eeadd5ecd9c3c74c2b3cb633f8e2f2fad799250a0f70d652b6b825e4',5,'digits.onnx',1893553445678901,'onnx','reads','{"a":"b"}','{"site":"north","deep":{"list":[1,1.5,true,null,"é"]}}');
CREATE TABLE oci_blobs (
    repository TEXT NOT NULL,
    digest TEXT NOT NULL,
    PRIMARY KEY (repository, digest)
);
INSERT INTO "oci_blobs" VALUES('a/b','sha256:fa2c8cc4f28176bbeed4b736df569a34c79cd3723e9ec42f9674b4d46ac6b8b8');
CREATE TABLE oci_manifests (
    repository TEXT NOT NULL,
    digest TEXT NOT NULL,
    media_type TEXT NOT NULL,
    subject TEXT,
    artifact_type TEXT NOT NULL,
    annotations TEXT NOT NULL,
    content BLOB NOT NULL,
    PRIMARY KEY (repository, digest)
);
INSERT INTO "oci_manifests" VALUES('a/b','sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a','application/json','sha256:a9491f4c1bf7b0cffbadcba2db8f028e4b3f2867cb59e1f3a0bc1968f3c51242','thing','{"a":"b"}',X'7B7D');
CREATE TABLE oci_tags (
    repository TEXT NOT NULL,
    tag TEXT NOT NULL,
    digest TEXT NOT NULL,
    PRIMARY KEY (repository, tag),
    FOREIGN KEY (repository, digest) REFERENCES oci_manifests (repository, digest)
);
INSERT INTO "oci_tags" VALUES('a/b','latest','sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a');
CREATE TABLE quarantine (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    device TEXT NOT NULL,
    received_at BIGINT NOT NULL,
    reason TEXT NOT NULL,
    digest TEXT NOT NULL,
    body BLOB NOT NULL,
    UNIQUE (device, digest)
);
INSERT INTO "quarantine" VALUES(1,'camera-1',1893553445678901,'not JSON','a8100ae6aa1940d0b663bb31cd466142ebbdbd5187131b92d93818987832eb89',X'FF');
CREATE TABLE schema_migrations (
	version BIGINT NOT NULL, 
	name TEXT NOT NULL, 
	sha256 TEXT NOT NULL, 
	applied_at BIGINT NOT NULL, 
	PRIMARY KEY (version)
);
INSERT INTO "schema_migrations" VALUES(1,'initial','ace4c47e9e03926fc0e6d16fc884ed06b5d821a3bf7a396c73bc3ccf22fa2081',1893553445678901);
CREATE TABLE settings (
    key TEXT PRIMARY KEY,
    value TEXT NOT NULL
);
INSERT INTO "settings" VALUES('epoch','2');
CREATE TABLE telemetry (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    device TEXT NOT NULL,
    epoch TEXT NOT NULL,
    seq BIGINT NOT NULL,
    module TEXT NOT NULL,
    output TEXT NOT NULL,
    at BIGINT NOT NULL,
    received_at BIGINT NOT NULL,
    properties TEXT NOT NULL,
    body BLOB NOT NULL,
    UNIQUE (device, epoch, seq)
);
INSERT INTO "telemetry" VALUES(1,'camera-1','0f',3,'classifier','out',1893553445678901,1893553446678901,'{"a":"b"}',X'00FF');
CREATE TABLE tokens (
    secret_hash TEXT PRIMARY KEY,
    name TEXT NOT NULL,
    role TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    expires_at BIGINT NOT NULL
);
INSERT INTO "tokens" VALUES('70cc','ann','admin',1893553445678901,1893553445678901);
CREATE TABLE version_counters (
    kind TEXT NOT NULL,
    name TEXT NOT NULL,
    newest BIGINT NOT NULL,
    PRIMARY KEY (kind, name)
);
INSERT INTO "version_counters" VALUES('model','digits',1);
INSERT INTO "version_counters" VALUES('image','digits',1);
CREATE INDEX members_by_device ON members (device_id, deployment_id);
CREATE INDEX telemetry_by_device ON telemetry (device, id);
CREATE INDEX quarantine_by_device ON quarantine (device, id);
CREATE INDEX oci_manifests_by_subject ON oci_manifests (repository, subject)
WHERE subject IS NOT NULL;
CREATE INDEX oci_tags_by_digest ON oci_tags (repository, digest);
CREATE INDEX oci_blobs_by_digest ON oci_blobs (digest, repository);
DELETE FROM "sqlite_sequence";
INSERT INTO "sqlite_sequence" VALUES('telemetry',1);
INSERT INTO "sqlite_sequence" VALUES('quarantine',1);
COMMIT;
