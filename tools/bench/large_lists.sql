-- What a tenant with {rows} products has beside them; large_lists.py fills in the numbers and ids between braces.
-- The triggers of the schema write the counts of rows and the change feed.

CREATE FUNCTION pg_temp.id(kind int, number bigint) RETURNS uuid LANGUAGE sql IMMUTABLE
RETURN (lpad(to_hex(1730000000000 + number), 12, '0') || '7000' || lpad(to_hex(32768 + kind), 4, '0')
    || lpad(to_hex(number), 12, '0'))::uuid;

CREATE FUNCTION pg_temp.moment(number bigint) RETURNS timestamptz LANGUAGE sql IMMUTABLE
RETURN timestamptz '2026-01-01 00:00+00' + number * interval '1 second';

CREATE TEMPORARY TABLE numbered AS
SELECT id, row_number() OVER (ORDER BY id) AS n FROM products WHERE organization_id = '{organization}';

-- Imports: the newest ones have a result for each product, {import_rows} each; the others have none.
INSERT INTO uploads (id, owner_id, organization_id, filename, content_type, expires_at, status, created_at, updated_at)
VALUES (pg_temp.id({UPLOAD}, 1), '{owner}', '{organization}', 'products.csv', 'text/csv', now() + interval '1 day',
    'received', now(), now());

INSERT INTO product_imports
    (id, owner_id, organization_id, upload_id, file_id, file_hash, format, mode, match_by, column_mapping, empty_cells,
    validate_only, status, next_offset, next_line, total_count, created_count, updated_count, unchanged_count,
    failed_count, image_count, image_added_count, image_unchanged_count, image_failed_count, attempts, rows_completed_at,
    completed_at, created_at, updated_at)
SELECT pg_temp.id({IMPORT}, n), '{owner}', '{organization}', pg_temp.id({UPLOAD}, 1), pg_temp.id({UPLOAD}, 1), 'hash',
    'csv', 'upsert', 'external_id', '{{}}', 'keep', false, CASE WHEN n % 10 = 0 THEN 'failed' ELSE 'completed' END, 0, 0,
    rows, rows * 90 / 100, 0, rows * 9 / 100, rows / 100, 0, 0, 0, 0, 1, pg_temp.moment(n), pg_temp.moment(n),
    pg_temp.moment(n), pg_temp.moment(n)
FROM (
    SELECT n, CASE WHEN n > {imports} - {rows} / {import_rows} THEN {import_rows} ELSE 0 END AS rows
    FROM generate_series(1, {imports}) n
) AS imported;

INSERT INTO product_import_results
    (id, import_id, line, external_id, sku, status, product_id, problem, created_at, updated_at)
SELECT pg_temp.id({RESULT}, n), pg_temp.id({IMPORT}, {imports} - (n - 1) / {import_rows}), (n - 1) % {import_rows} + 2, 'external-' || n, 'SKU-' || n,
    CASE WHEN n % 100 = 0 THEN 'failed' WHEN n % 10 = 1 THEN 'unchanged' ELSE 'created' END,
    CASE WHEN n % 100 > 0 THEN id END,
    CASE WHEN n % 100 = 0
        THEN '{{"title": "Invalid request", "status": 422, "code": "invalid_request", "detail": "name", "errors": []}}'::json END,
    pg_temp.moment(n), pg_temp.moment(n)
FROM numbered;

-- Shootings of {looks} looks, each of one product with one shot, one generation and one prediction.
INSERT INTO shootings
    (id, owner_id, organization_id, name, due_date, archived, phase, require_test_shooting, test_shooting_held, metadata,
    created_at, updated_at)
SELECT pg_temp.id({SHOOTING}, n), '{owner}', '{organization}', 'Shooting ' || n, now(), n % 10 = 0, 'PRODUCTION', false,
    false, '{{}}', pg_temp.moment(n), pg_temp.moment(n)
FROM generate_series(1, {rows} / {looks}) n;

INSERT INTO looks (id, owner_id, organization_id, shooting_id, main_product_id, metadata, created_at, updated_at)
SELECT pg_temp.id({LOOK}, n), '{owner}', '{organization}', pg_temp.id({SHOOTING}, (n - 1) / {looks} + 1), id, '{{}}',
    pg_temp.moment(n), pg_temp.moment(n)
FROM numbered;

INSERT INTO look_shot_types (look_id, shot_type_id, position) SELECT pg_temp.id({LOOK}, n), '{shot_type}', 0 FROM numbered;

INSERT INTO shots
    (id, owner_id, organization_id, shooting_id, look_id, shot_type_id, status, metadata, created_at, updated_at)
SELECT pg_temp.id({SHOT}, n), '{owner}', '{organization}', pg_temp.id({SHOOTING}, (n - 1) / {looks} + 1),
    pg_temp.id({LOOK}, n), '{shot_type}', 'pending_review', '{{}}', pg_temp.moment(n), pg_temp.moment(n)
FROM numbered;

INSERT INTO generations
    (id, owner_id, organization_id, shot_id, product_id, generation_type, generation_strategy, batch_size, inputs, status,
    revision, priority, progress, attempts, fallen_back, remote_steps, remote_failures, cost_credits, created_at,
    updated_at)
SELECT pg_temp.id({GENERATION}, n), '{owner}', '{organization}', pg_temp.id({SHOT}, n), id, 'BASE', 'GENERATE', 1, '{{}}',
    'completed', 0, 0, 100, 1, false, 0, 0, 0, pg_temp.moment(n), pg_temp.moment(n)
FROM numbered;

INSERT INTO predictions
    (id, owner_id, organization_id, generation_id, shot_id, media_id, index, status, width, height, content_type,
    file_size, content_hash, seed, quality, provenance, compliance, warnings, created_at, updated_at)
SELECT pg_temp.id({PREDICTION}, n), '{owner}', '{organization}', pg_temp.id({GENERATION}, n), pg_temp.id({SHOT}, n),
    '{media}', 0, CASE WHEN n % 4 = 0 THEN 'approved' ELSE 'pending_review' END, 1200, 1600, 'image/jpeg', 200000,
    md5(n::text), 1, '{quality}', '{provenance}', '[]', '[]', pg_temp.moment(n), pg_temp.moment(n)
FROM numbered;
