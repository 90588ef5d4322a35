BEGIN TRANSACTION;
CREATE TABLE agents (
	id TEXT NOT NULL, 
	owner_id TEXT NOT NULL, 
	cell_id TEXT NOT NULL, 
	host_id TEXT NOT NULL, 
	name TEXT NOT NULL, 
	spec JSON NOT NULL, 
	sealed BLOB, 
	wanted TEXT NOT NULL, 
	state TEXT NOT NULL, 
	external BOOLEAN NOT NULL, 
	generation INTEGER NOT NULL, 
	run INTEGER NOT NULL, 
	agent_ready BOOLEAN, 
	failure JSON, 
	revision BIGINT NOT NULL, 
	created_at DATETIME NOT NULL, 
	updated_at DATETIME NOT NULL, 
	CONSTRAINT pk_agents PRIMARY KEY (id), 
	CONSTRAINT fk_agents_cell_id FOREIGN KEY(cell_id) REFERENCES cells (id), 
	CONSTRAINT fk_agents_host_id FOREIGN KEY(host_id) REFERENCES hosts (id), 
	CONSTRAINT fk_agents_owner_id FOREIGN KEY(owner_id) REFERENCES owners (id)
);
INSERT INTO "agents" VALUES('bbbbbbbbbbbbbbbb','ann','cell-1','host-1','ada','{"image": "ghcr.io/milady/agent:1", "command": ["run", "--x"], "port": 3000, "health_path": "/api/health", "resources": {"memoryBytes": 1000}, "idle_policy": {"mode": "pause", "afterSeconds": 60}}',X'01300EA11A6F55E72AE94BE1EAFF1EC0652A73D769B4DAA1CED53D27B6FFC9C58D9BEF88B9743C54B1A7F04B3DDF52A2D3AE30FE48A0C87FA42A115E1D442A028D6D42C6530776A952EA85055E519192BC8B02F18CEA7D81739EDD05590245EC0FAECCDE25D0368CA4764BEE0CB38851C2B5FA2A906D7E12A3F8AF85EAA27F','running','ready',0,1,1,1,NULL,5,'2026-01-02 03:04:07.678901','2026-01-02 03:04:17.678901');
INSERT INTO "agents" VALUES('cccccccccccccccc','ann','cell-1','host-1','bob','{"image": "ghcr.io/milady/agent:1", "command": ["run", "--x"], "port": 3000, "health_path": "/api/health", "resources": {"memoryBytes": 1000}, "idle_policy": {"mode": "pause", "afterSeconds": 60}}',X'01300EA11AABD9EF2E34530090001221C54BA0C34950805C9271456C2B23CB450395A5C3C7326694272DBE2CDC1C10B6FF9ABF59DB1E83D267BA181D631223012656F0C1E1CE5383304720D4E188CF89CA3AD09B7052F475B5AC67E3421503DE8A5597EBCAEE3AEC7CCD47883647236618CE684C3F997B2B8D580203D73199','running','requested',1,1,0,NULL,'{"step": "start instance", "reason": "it died", "code": "instance_died", "attempts": 3, "retry_at": "2026-01-02T03:04:05.678901+00:00", "fix": "Look at its logs."}',2,'2026-01-02 03:04:19.678901','2026-01-02 03:04:23.678901');
INSERT INTO "agents" VALUES('dddddddddddddddd','bob','cell-1','host-1','eve','{"image": "ghcr.io/milady/agent:1", "command": null, "port": null, "health_path": "/api/health", "resources": {}, "idle_policy": {}}',NULL,'deleted','gone',0,1,0,NULL,NULL,4,'2026-01-02 03:04:25.678901','2026-01-02 03:04:33.678901');
CREATE TABLE alembic_version (
	version_num VARCHAR(32) NOT NULL, 
	CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num)
);
INSERT INTO "alembic_version" VALUES('0001');
CREATE TABLE api_tokens (
	id TEXT NOT NULL, 
	owner_id TEXT NOT NULL, 
	name TEXT NOT NULL, 
	scopes JSON NOT NULL, 
	agent_id TEXT, 
	sha256 TEXT NOT NULL, 
	created_at DATETIME NOT NULL, 
	expires_at DATETIME, 
	revoked_at DATETIME, 
	CONSTRAINT pk_api_tokens PRIMARY KEY (id), 
	CONSTRAINT fk_api_tokens_agent_id FOREIGN KEY(agent_id) REFERENCES agents (id), 
	CONSTRAINT fk_api_tokens_owner_id FOREIGN KEY(owner_id) REFERENCES owners (id), 
	CONSTRAINT uq_api_tokens_sha256 UNIQUE (sha256)
);
INSERT INTO "api_tokens" VALUES('t1','ann','laptop','["owner"]',NULL,'aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa','2026-01-02 03:04:05.678901',NULL,NULL);
INSERT INTO "api_tokens" VALUES('t2','ann','one agent','["owner"]','bbbbbbbbbbbbbbbb','bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb','2026-01-02 03:04:05.678901','2026-01-03 03:04:05.678901','2026-01-02 03:04:37.678901');
CREATE TABLE cells (
	id TEXT NOT NULL, 
	name TEXT NOT NULL, 
	CONSTRAINT pk_cells PRIMARY KEY (id), 
	CONSTRAINT uq_cells_name UNIQUE (name)
);
INSERT INTO "cells" VALUES('cell-1','first cell');
CREATE TABLE cli_sessions (
	sha256 TEXT NOT NULL, 
	user_code TEXT NOT NULL, 
	owner_id TEXT, 
	created_at DATETIME NOT NULL, 
	expires_at DATETIME NOT NULL, 
	approved_at DATETIME, 
	taken_at DATETIME, 
	CONSTRAINT pk_cli_sessions PRIMARY KEY (sha256), 
	CONSTRAINT uq_cli_sessions_user_code UNIQUE (user_code)
);
INSERT INTO "cli_sessions" VALUES('dddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddd','BCDF-GHJK','ann','2026-01-02 03:04:05.678901','2026-01-02 03:14:05.678901','2026-01-02 03:04:39.678901',NULL);
CREATE TABLE counters (
	name TEXT NOT NULL, 
	value BIGINT NOT NULL, 
	CONSTRAINT pk_counters PRIMARY KEY (name)
);
INSERT INTO "counters" VALUES('epoch',2);
INSERT INTO "counters" VALUES('events',11);
CREATE TABLE events (
	sequence BIGINT NOT NULL, 
	agent_id TEXT NOT NULL, 
	at DATETIME NOT NULL, 
	step TEXT NOT NULL, 
	state_from TEXT, 
	state_to TEXT NOT NULL, 
	generation INTEGER NOT NULL, 
	run INTEGER NOT NULL, 
	reason TEXT NOT NULL, 
	seconds DOUBLE, 
	CONSTRAINT pk_events PRIMARY KEY (sequence), 
	CONSTRAINT fk_events_agent_id FOREIGN KEY(agent_id) REFERENCES agents (id)
);
INSERT INTO "events" VALUES(1,'bbbbbbbbbbbbbbbb','2026-01-02 03:04:10.678901','create',NULL,'requested',1,0,'requested by its owner',NULL);
INSERT INTO "events" VALUES(2,'bbbbbbbbbbbbbbbb','2026-01-02 03:04:12.678901','mint key and create instance','requested','keyed',1,1,'',0.25);
INSERT INTO "events" VALUES(3,'bbbbbbbbbbbbbbbb','2026-01-02 03:04:14.678901','start instance','keyed','started',1,1,'',NULL);
INSERT INTO "events" VALUES(4,'bbbbbbbbbbbbbbbb','2026-01-02 03:04:16.678901','await join','started','joined',1,1,'',NULL);
INSERT INTO "events" VALUES(5,'bbbbbbbbbbbbbbbb','2026-01-02 03:04:18.678901','await ready','joined','ready',1,1,'',NULL);
INSERT INTO "events" VALUES(6,'cccccccccccccccc','2026-01-02 03:04:22.678901','create',NULL,'requested',1,0,'',NULL);
INSERT INTO "events" VALUES(7,'cccccccccccccccc','2026-01-02 03:04:24.678901','start instance','requested','requested',1,0,'it died',NULL);
INSERT INTO "events" VALUES(8,'dddddddddddddddd','2026-01-02 03:04:28.678901','create',NULL,'requested',1,0,'',NULL);
INSERT INTO "events" VALUES(9,'dddddddddddddddd','2026-01-02 03:04:30.678901','delete','requested','deleting',1,0,'deleted',NULL);
INSERT INTO "events" VALUES(10,'dddddddddddddddd','2026-01-02 03:04:32.678901','delete','deleting','tombstone',1,0,'deleted',NULL);
INSERT INTO "events" VALUES(11,'dddddddddddddddd','2026-01-02 03:04:34.678901','delete','tombstone','gone',1,0,'deleted',NULL);
CREATE TABLE generations (
	agent_id TEXT NOT NULL, 
	number INTEGER NOT NULL, 
	preauth_key_id TEXT, 
	preauth_key_expired BOOLEAN NOT NULL, 
	node_id TEXT, 
	node_key TEXT, 
	machine_key TEXT, 
	ipv4 TEXT, 
	ipv6 TEXT, 
	joined_at DATETIME, 
	created_at DATETIME NOT NULL, 
	CONSTRAINT pk_generations PRIMARY KEY (agent_id, number), 
	CONSTRAINT fk_generations_agent_id FOREIGN KEY(agent_id) REFERENCES agents (id)
);
INSERT INTO "generations" VALUES('bbbbbbbbbbbbbbbb',1,'3',1,'7','nodekey:7','mkey:7','100.64.0.7','fd7a:115c:a1e0::7','2026-01-02 03:04:05.678901','2026-01-02 03:04:05.678901');
INSERT INTO "generations" VALUES('cccccccccccccccc',1,NULL,0,NULL,NULL,NULL,NULL,NULL,NULL,'2026-01-02 03:04:05.678901');
INSERT INTO "generations" VALUES('dddddddddddddddd',1,NULL,0,NULL,NULL,NULL,NULL,NULL,NULL,'2026-01-02 03:04:05.678901');
CREATE TABLE hosts (
	id TEXT NOT NULL, 
	name TEXT NOT NULL, 
	runtime TEXT NOT NULL, 
	CONSTRAINT pk_hosts PRIMARY KEY (id), 
	CONSTRAINT uq_hosts_name UNIQUE (name)
);
INSERT INTO "hosts" VALUES('host-1','first host','process');
CREATE TABLE idempotency_keys (
	owner_id TEXT NOT NULL, 
	"key" TEXT NOT NULL, 
	body_sha256 TEXT NOT NULL, 
	agent_id TEXT NOT NULL, 
	claimed_at DATETIME NOT NULL, 
	status INTEGER, 
	answer BLOB, 
	CONSTRAINT pk_idempotency_keys PRIMARY KEY (owner_id, "key")
);
INSERT INTO "idempotency_keys" VALUES('ann','key-1','cccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccc','bbbbbbbbbbbbbbbb','2026-01-02 03:04:38.678901',201,X'01300EA11A7C4344517EDB7DDC37F244AEDE655080D4121AD311EC1532EA43E288FBB21F47481446786E5F36B02F95B9');
CREATE TABLE installation (
	singleton INTEGER NOT NULL, 
	id TEXT NOT NULL, 
	canary BLOB NOT NULL, 
	created_at DATETIME NOT NULL, 
	CONSTRAINT pk_installation PRIMARY KEY (singleton)
);
INSERT INTO "installation" VALUES(1,'inst1',X'01300EA11A277C39993670B387872B296A664DDE01BE05FE75E3F04BCE341150EEC01AEA1EA5917E60A348BB1E748CC205E0DCC906726869208F42223EE4535F1E65FBBD04C0AA691CD6969AB3F601','2026-01-02 03:04:06.678901');
CREATE TABLE owners (
	id TEXT NOT NULL, 
	created_at DATETIME NOT NULL, 
	CONSTRAINT pk_owners PRIMARY KEY (id)
);
INSERT INTO "owners" VALUES('ann','2026-01-02 03:04:09.678901');
INSERT INTO "owners" VALUES('bob','2026-01-02 03:04:27.678901');
CREATE TABLE runs (
	agent_id TEXT NOT NULL, 
	generation INTEGER NOT NULL, 
	number INTEGER NOT NULL, 
	runtime_ref TEXT, 
	agent_token BLOB, 
	join_token_sha256 TEXT, 
	busy_token_sha256 TEXT, 
	started_at DATETIME, 
	ready_at DATETIME, 
	ended_at DATETIME, 
	end_reason TEXT, 
	CONSTRAINT pk_runs PRIMARY KEY (agent_id, generation, number), 
	CONSTRAINT fk_runs_agent_id_generation FOREIGN KEY(agent_id, generation) REFERENCES generations (agent_id, number)
);
INSERT INTO "runs" VALUES('bbbbbbbbbbbbbbbb',1,1,'ref-1',X'01300EA11A864FB502017F2A8513018853FE9ABFA89F05070633A847C317D36DB23280D293F7A532E046','1111111111111111111111111111111111111111111111111111111111111111','2222222222222222222222222222222222222222222222222222222222222222','2026-01-02 03:04:05.678901','2026-01-02 03:04:05.678901',NULL,NULL);
CREATE INDEX ix_idempotency_keys_claimed_at ON idempotency_keys (claimed_at);
CREATE INDEX ix_agents_listed ON agents (created_at, id) WHERE state != 'gone';
CREATE INDEX ix_agents_of_owner ON agents (owner_id, created_at, id) WHERE state != 'gone';
CREATE UNIQUE INDEX uq_agents_name ON agents (owner_id, name) WHERE wanted != 'deleted';
CREATE INDEX ix_api_tokens_of_agent ON api_tokens (agent_id);
CREATE INDEX ix_api_tokens_of_owner ON api_tokens (owner_id, created_at);
CREATE INDEX ix_events_of_agent ON events (agent_id, sequence);
COMMIT;
