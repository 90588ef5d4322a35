CREATE TABLE alembic_version (
	version_num VARCHAR(32) NOT NULL, 
	CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num)
);
CREATE TABLE cells (
	id TEXT NOT NULL, 
	name TEXT NOT NULL, 
	CONSTRAINT pk_cells PRIMARY KEY (id), 
	CONSTRAINT uq_cells_name UNIQUE (name)
);
CREATE TABLE cli_sessions (
	sha256 TEXT NOT NULL, 
	user_code TEXT NOT NULL, 
	owner_id TEXT, 
	created_at TIMESTAMP WITH TIME ZONE NOT NULL, 
	expires_at TIMESTAMP WITH TIME ZONE NOT NULL, 
	approved_at TIMESTAMP WITH TIME ZONE, 
	taken_at TIMESTAMP WITH TIME ZONE, 
	CONSTRAINT pk_cli_sessions PRIMARY KEY (sha256), 
	CONSTRAINT uq_cli_sessions_user_code UNIQUE (user_code)
);
CREATE TABLE counters (
	name TEXT NOT NULL, 
	value BIGINT NOT NULL, 
	CONSTRAINT pk_counters PRIMARY KEY (name)
);
CREATE TABLE hosts (
	id TEXT NOT NULL, 
	name TEXT NOT NULL, 
	runtime TEXT NOT NULL, 
	CONSTRAINT pk_hosts PRIMARY KEY (id), 
	CONSTRAINT uq_hosts_name UNIQUE (name)
);
CREATE TABLE idempotency_keys (
	owner_id TEXT NOT NULL, 
	key TEXT NOT NULL, 
	body_sha256 TEXT NOT NULL, 
	agent_id TEXT NOT NULL, 
	claimed_at TIMESTAMP WITH TIME ZONE NOT NULL, 
	status INTEGER, 
	answer BYTEA, 
	CONSTRAINT pk_idempotency_keys PRIMARY KEY (owner_id, key)
);
CREATE INDEX ix_idempotency_keys_claimed_at ON idempotency_keys (claimed_at);
CREATE TABLE installation (
	singleton INTEGER NOT NULL, 
	id TEXT NOT NULL, 
	canary BYTEA NOT NULL, 
	created_at TIMESTAMP WITH TIME ZONE NOT NULL, 
	CONSTRAINT pk_installation PRIMARY KEY (singleton)
);
CREATE TABLE owners (
	id TEXT NOT NULL, 
	created_at TIMESTAMP WITH TIME ZONE NOT NULL, 
	CONSTRAINT pk_owners PRIMARY KEY (id)
);
CREATE TABLE agents (
	id TEXT NOT NULL, 
	owner_id TEXT NOT NULL, 
	cell_id TEXT NOT NULL, 
	host_id TEXT NOT NULL, 
	name TEXT NOT NULL, 
	spec JSON NOT NULL, 
	sealed BYTEA, 
	wanted TEXT NOT NULL, 
	state TEXT NOT NULL, 
	external BOOLEAN NOT NULL, 
	generation INTEGER NOT NULL, 
	run INTEGER NOT NULL, 
	agent_ready BOOLEAN, 
	failure JSON, 
	revision BIGINT NOT NULL, 
	created_at TIMESTAMP WITH TIME ZONE NOT NULL, 
	updated_at TIMESTAMP WITH TIME ZONE NOT NULL, 
	CONSTRAINT pk_agents PRIMARY KEY (id), 
	CONSTRAINT fk_agents_cell_id FOREIGN KEY(cell_id) REFERENCES cells (id), 
	CONSTRAINT fk_agents_host_id FOREIGN KEY(host_id) REFERENCES hosts (id), 
	CONSTRAINT fk_agents_owner_id FOREIGN KEY(owner_id) REFERENCES owners (id)
);
CREATE INDEX ix_agents_listed ON agents (created_at, id) WHERE state != 'gone';
CREATE INDEX ix_agents_of_owner ON agents (owner_id, created_at, id) WHERE state != 'gone';
CREATE UNIQUE INDEX uq_agents_name ON agents (owner_id, name) WHERE wanted != 'deleted';
CREATE TABLE api_tokens (
	id TEXT NOT NULL, 
	owner_id TEXT NOT NULL, 
	name TEXT NOT NULL, 
	scopes JSON NOT NULL, 
	agent_id TEXT, 
	sha256 TEXT NOT NULL, 
	created_at TIMESTAMP WITH TIME ZONE NOT NULL, 
	expires_at TIMESTAMP WITH TIME ZONE, 
	revoked_at TIMESTAMP WITH TIME ZONE, 
	CONSTRAINT pk_api_tokens PRIMARY KEY (id), 
	CONSTRAINT fk_api_tokens_agent_id FOREIGN KEY(agent_id) REFERENCES agents (id), 
	CONSTRAINT fk_api_tokens_owner_id FOREIGN KEY(owner_id) REFERENCES owners (id), 
	CONSTRAINT uq_api_tokens_sha256 UNIQUE (sha256)
);
CREATE INDEX ix_api_tokens_of_agent ON api_tokens (agent_id);
CREATE INDEX ix_api_tokens_of_owner ON api_tokens (owner_id, created_at);
CREATE TABLE events (
	sequence BIGINT NOT NULL, 
	agent_id TEXT NOT NULL, 
	at TIMESTAMP WITH TIME ZONE NOT NULL, 
	step TEXT NOT NULL, 
	state_from TEXT, 
	state_to TEXT NOT NULL, 
	generation INTEGER NOT NULL, 
	run INTEGER NOT NULL, 
	reason TEXT NOT NULL, 
	seconds DOUBLE PRECISION, 
	CONSTRAINT pk_events PRIMARY KEY (sequence), 
	CONSTRAINT fk_events_agent_id FOREIGN KEY(agent_id) REFERENCES agents (id)
);
CREATE INDEX ix_events_of_agent ON events (agent_id, sequence);
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
	joined_at TIMESTAMP WITH TIME ZONE, 
	created_at TIMESTAMP WITH TIME ZONE NOT NULL, 
	CONSTRAINT pk_generations PRIMARY KEY (agent_id, number), 
	CONSTRAINT fk_generations_agent_id FOREIGN KEY(agent_id) REFERENCES agents (id)
);
CREATE TABLE runs (
	agent_id TEXT NOT NULL, 
	generation INTEGER NOT NULL, 
	number INTEGER NOT NULL, 
	runtime_ref TEXT, 
	agent_token BYTEA, 
	join_token_sha256 TEXT, 
	busy_token_sha256 TEXT, 
	started_at TIMESTAMP WITH TIME ZONE, 
	ready_at TIMESTAMP WITH TIME ZONE, 
	ended_at TIMESTAMP WITH TIME ZONE, 
	end_reason TEXT, 
	CONSTRAINT pk_runs PRIMARY KEY (agent_id, generation, number), 
	CONSTRAINT fk_runs_agent_id_generation FOREIGN KEY(agent_id, generation) REFERENCES generations (agent_id, number)
);
INSERT INTO cells (id, name) VALUES ('cell-1', 'first cell');
INSERT INTO cli_sessions (sha256, user_code, owner_id, created_at, expires_at, approved_at, taken_at) VALUES ('dddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddd', 'BCDF-GHJK', 'ann', '2026-01-02 03:04:05.678901+00', '2026-01-02 03:14:05.678901+00', '2026-01-02 03:04:39.678901+00', NULL);
INSERT INTO counters (name, value) VALUES ('epoch', '2');
INSERT INTO counters (name, value) VALUES ('events', '11');
INSERT INTO hosts (id, name, runtime) VALUES ('host-1', 'first host', 'process');
INSERT INTO idempotency_keys (owner_id, key, body_sha256, agent_id, claimed_at, status, answer) VALUES ('ann', 'key-1', 'cccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccc', 'bbbbbbbbbbbbbbbb', '2026-01-02 03:04:38.678901+00', '201', E'\\x01300ea11ae5b784d8b2f234ca45ea9308eede93d2998e54e13db1f802f98ce892999c41c446d024be1b02bdeb0ab89e');
INSERT INTO installation (singleton, id, canary, created_at) VALUES ('1', 'inst1', E'\\x01300ea11a8d6cf30df2ce1419038c4ff7b62b4b6a5f6897a3b1b0c25d9ce5912d1a7480f690c8c7a56facbaf84a986eea164fab420c589ef66f6a702e4a69ffd53e520a81fa1d48635bac3fa3e6d0', '2026-01-02 03:04:06.678901+00');
INSERT INTO owners (id, created_at) VALUES ('ann', '2026-01-02 03:04:09.678901+00');
INSERT INTO owners (id, created_at) VALUES ('bob', '2026-01-02 03:04:27.678901+00');
INSERT INTO agents (id, owner_id, cell_id, host_id, name, spec, sealed, wanted, state, external, generation, run, agent_ready, failure, revision, created_at, updated_at) VALUES ('bbbbbbbbbbbbbbbb', 'ann', 'cell-1', 'host-1', 'ada', '{"image": "ghcr.io/milady/agent:1", "command": ["run", "--x"], "port": 3000, "health_path": "/api/health", "resources": {"memoryBytes": 1000}, "idle_policy": {"mode": "pause", "afterSeconds": 60}}', E'\\x01300ea11a90f1d7ff793efd1ce0f21273831016e1f2b4ac6a464aee68e386960bbcea09ea3778c5c63f1b05af218b7b61e5ebee9b10b806f93b37acd9d378031db7507b166eac953e5556de5af8a294fad436ff443a6824983ab1bea6995e5e1266ec075083202179b6b53ef3bd7ded7158488ef1fabd94618f7923f7277f', 'running', 'ready', 'false', '1', '1', 'true', NULL, '5', '2026-01-02 03:04:07.678901+00', '2026-01-02 03:04:17.678901+00');
INSERT INTO agents (id, owner_id, cell_id, host_id, name, spec, sealed, wanted, state, external, generation, run, agent_ready, failure, revision, created_at, updated_at) VALUES ('cccccccccccccccc', 'ann', 'cell-1', 'host-1', 'bob', '{"image": "ghcr.io/milady/agent:1", "command": ["run", "--x"], "port": 3000, "health_path": "/api/health", "resources": {"memoryBytes": 1000}, "idle_policy": {"mode": "pause", "afterSeconds": 60}}', E'\\x01300ea11abb7852decbc2300a5e0ed2e69d7149230004205519d5ca733db1ea71b1f10a798abdf31086b610596f4ece4ac9bfd0f7e23edeb8fcc35bf196591c331bb7702eb5f9c199c1bb2ad91eb607ea0f6ddbfc557d32e58f50c557601aa73cf7a279d68f000bf40088b3c0f418cbf677bc3c0d40cdd1bd6427203e38b5', 'running', 'requested', 'true', '1', '0', NULL, '{"step": "start instance", "reason": "it died", "code": "instance_died", "attempts": 3, "retry_at": "2026-01-02T03:04:05.678901+00:00", "fix": "Look at its logs."}', '2', '2026-01-02 03:04:19.678901+00', '2026-01-02 03:04:23.678901+00');
INSERT INTO agents (id, owner_id, cell_id, host_id, name, spec, sealed, wanted, state, external, generation, run, agent_ready, failure, revision, created_at, updated_at) VALUES ('dddddddddddddddd', 'bob', 'cell-1', 'host-1', 'eve', '{"image": "ghcr.io/milady/agent:1", "command": null, "port": null, "health_path": "/api/health", "resources": {}, "idle_policy": {}}', NULL, 'deleted', 'gone', 'false', '1', '0', NULL, NULL, '4', '2026-01-02 03:04:25.678901+00', '2026-01-02 03:04:33.678901+00');
INSERT INTO api_tokens (id, owner_id, name, scopes, agent_id, sha256, created_at, expires_at, revoked_at) VALUES ('t1', 'ann', 'laptop', '["owner"]', NULL, 'aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa', '2026-01-02 03:04:05.678901+00', NULL, NULL);
INSERT INTO api_tokens (id, owner_id, name, scopes, agent_id, sha256, created_at, expires_at, revoked_at) VALUES ('t2', 'ann', 'one agent', '["owner"]', 'bbbbbbbbbbbbbbbb', 'bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb', '2026-01-02 03:04:05.678901+00', '2026-01-03 03:04:05.678901+00', '2026-01-02 03:04:37.678901+00');
INSERT INTO events (sequence, agent_id, at, step, state_from, state_to, generation, run, reason, seconds) VALUES ('1', 'bbbbbbbbbbbbbbbb', '2026-01-02 03:04:10.678901+00', 'create', NULL, 'requested', '1', '0', 'requested by its owner', NULL);
INSERT INTO events (sequence, agent_id, at, step, state_from, state_to, generation, run, reason, seconds) VALUES ('2', 'bbbbbbbbbbbbbbbb', '2026-01-02 03:04:12.678901+00', 'mint key and create instance', 'requested', 'keyed', '1', '1', '', '0.25');
INSERT INTO events (sequence, agent_id, at, step, state_from, state_to, generation, run, reason, seconds) VALUES ('3', 'bbbbbbbbbbbbbbbb', '2026-01-02 03:04:14.678901+00', 'start instance', 'keyed', 'started', '1', '1', '', NULL);
INSERT INTO events (sequence, agent_id, at, step, state_from, state_to, generation, run, reason, seconds) VALUES ('4', 'bbbbbbbbbbbbbbbb', '2026-01-02 03:04:16.678901+00', 'await join', 'started', 'joined', '1', '1', '', NULL);
INSERT INTO events (sequence, agent_id, at, step, state_from, state_to, generation, run, reason, seconds) VALUES ('5', 'bbbbbbbbbbbbbbbb', '2026-01-02 03:04:18.678901+00', 'await ready', 'joined', 'ready', '1', '1', '', NULL);
INSERT INTO events (sequence, agent_id, at, step, state_from, state_to, generation, run, reason, seconds) VALUES ('6', 'cccccccccccccccc', '2026-01-02 03:04:22.678901+00', 'create', NULL, 'requested', '1', '0', '', NULL);
INSERT INTO events (sequence, agent_id, at, step, state_from, state_to, generation, run, reason, seconds) VALUES ('7', 'cccccccccccccccc', '2026-01-02 03:04:24.678901+00', 'start instance', 'requested', 'requested', '1', '0', 'it died', NULL);
INSERT INTO events (sequence, agent_id, at, step, state_from, state_to, generation, run, reason, seconds) VALUES ('8', 'dddddddddddddddd', '2026-01-02 03:04:28.678901+00', 'create', NULL, 'requested', '1', '0', '', NULL);
INSERT INTO events (sequence, agent_id, at, step, state_from, state_to, generation, run, reason, seconds) VALUES ('9', 'dddddddddddddddd', '2026-01-02 03:04:30.678901+00', 'delete', 'requested', 'deleting', '1', '0', 'deleted', NULL);
INSERT INTO events (sequence, agent_id, at, step, state_from, state_to, generation, run, reason, seconds) VALUES ('10', 'dddddddddddddddd', '2026-01-02 03:04:32.678901+00', 'delete', 'deleting', 'tombstone', '1', '0', 'deleted', NULL);
INSERT INTO events (sequence, agent_id, at, step, state_from, state_to, generation, run, reason, seconds) VALUES ('11', 'dddddddddddddddd', '2026-01-02 03:04:34.678901+00', 'delete', 'tombstone', 'gone', '1', '0', 'deleted', NULL);
INSERT INTO generations (agent_id, number, preauth_key_id, preauth_key_expired, node_id, node_key, machine_key, ipv4, ipv6, joined_at, created_at) VALUES ('bbbbbbbbbbbbbbbb', '1', '3', 'true', '7', 'nodekey:7', 'mkey:7', '100.64.0.7', 'fd7a:115c:a1e0::7', '2026-01-02 03:04:05.678901+00', '2026-01-02 03:04:05.678901+00');
INSERT INTO generations (agent_id, number, preauth_key_id, preauth_key_expired, node_id, node_key, machine_key, ipv4, ipv6, joined_at, created_at) VALUES ('cccccccccccccccc', '1', NULL, 'false', NULL, NULL, NULL, NULL, NULL, NULL, '2026-01-02 03:04:05.678901+00');
INSERT INTO generations (agent_id, number, preauth_key_id, preauth_key_expired, node_id, node_key, machine_key, ipv4, ipv6, joined_at, created_at) VALUES ('dddddddddddddddd', '1', NULL, 'false', NULL, NULL, NULL, NULL, NULL, NULL, '2026-01-02 03:04:05.678901+00');
INSERT INTO runs (agent_id, generation, number, runtime_ref, agent_token, join_token_sha256, busy_token_sha256, started_at, ready_at, ended_at, end_reason) VALUES ('bbbbbbbbbbbbbbbb', '1', '1', 'ref-1', E'\\x01300ea11a773dd0579999a4a2ca2aea03b4f97453df17f76ebfee3cc2787044e0e875c51862a90fc2a4', '1111111111111111111111111111111111111111111111111111111111111111', '2222222222222222222222222222222222222222222222222222222222222222', '2026-01-02 03:04:05.678901+00', '2026-01-02 03:04:05.678901+00', NULL, NULL);
INSERT INTO alembic_version (version_num) VALUES ('0001');
