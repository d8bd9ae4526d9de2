// The statements, and how their rows become products.
const FILES = `${process.env.PUBLIC_URL}/api/v1/files/media`

const COLUMNS = `p.id, p.created_at, p.updated_at, p.owner_id, p.organization_id, p.sku, p.name, p.description,
  p.category, p.gender, p.materials, p.color, p.brand_id, p.state, p.public, p.external_id, p.metadata, p.cover_media_id`
const SELECT_PRODUCTS = `SELECT ${COLUMNS}, c.extension AS cover_extension
  FROM products p LEFT JOIN media_resources c ON c.id = p.cover_media_id`
const ORDER = 'ORDER BY p.created_at DESC, p.id DESC'

export const selectProduct = { name: 'select-product', text: `${SELECT_PRODUCTS} WHERE p.id = $1` }
export const selectProductToUpdate = {
  name: 'select-product-to-update',
  text: `${SELECT_PRODUCTS} WHERE p.id = $1 FOR UPDATE OF p`,
}
export const selectPage = {
  name: 'select-page',
  text: `${SELECT_PRODUCTS} WHERE p.organization_id = $1 ${ORDER} OFFSET $2 LIMIT $3`,
}
export const selectPageAfter = {
  name: 'select-page-after',
  text: `${SELECT_PRODUCTS} WHERE p.organization_id = $1 AND (p.created_at, p.id) < ($4, $5) ${ORDER} OFFSET $2 LIMIT $3`,
}
export const countProducts = {
  name: 'count-products',
  text: 'SELECT count(*)::int AS count FROM products WHERE organization_id = $1',
}
export const insertProduct = {
  name: 'insert-product',
  text: `INSERT INTO products AS p (id, created_at, updated_at, owner_id, organization_id, sku, name, description,
      category, gender, materials, color, state, public, metadata)
    VALUES (gen_random_uuid(), now(), now(), $1, $2, $3, $4, $5, $6, $7, $8, $9, 'READY', false, '{}')
    RETURNING ${COLUMNS}, NULL AS cover_extension`,
}
export const selectStored = {
  name: 'select-stored',
  text: 'SELECT fingerprint, body FROM stored_responses WHERE user_id = $1 AND key = $2',
}
export const insertStored = {
  name: 'insert-stored',
  text: 'INSERT INTO stored_responses (user_id, key, fingerprint, body) VALUES ($1, $2, $3, $4)',
}

// Each set of changed columns is one statement with one name. The schema of the body has checked the names.
export function updateProduct(columns) {
  const changes = columns.map((name, index) => `, ${name} = $${index + 2}`).join('')
  return {
    name: `update-product-${columns.join('-')}`,
    text: `UPDATE products AS p SET updated_at = clock_timestamp()${changes} WHERE id = $1
      RETURNING ${COLUMNS},
        (SELECT extension FROM media_resources c WHERE c.id = p.cover_media_id) AS cover_extension`,
  }
}

const selectImages = {
  name: 'select-images',
  text: `SELECT i.id, i.created_at, i.updated_at, i.product_id, i.media_id, i.type, i.position, i.alt_text, i.region,
      i.mask_media_id, m.extension, m.width, m.height, k.extension AS mask_extension
    FROM product_images i
    JOIN media_resources m ON m.id = i.media_id
    LEFT JOIN media_resources k ON k.id = i.mask_media_id
    WHERE i.product_id = ANY($1) ORDER BY i.position`,
}

const fileUrl = (id, extension) => (id ? `${FILES}/${id}/file.${extension}` : null)

// Adds to each row the properties that its columns lack. fast-json-stringify leaves the other columns out.
export async function loadProducts(client, rows) {
  const byId = new Map()
  for (const row of rows) {
    row.cover_image = fileUrl(row.cover_media_id, row.cover_extension)
    row.images = []
    byId.set(row.id, row)
  }
  const images = await client.query({ ...selectImages, values: [[...byId.keys()]] })
  for (const image of images.rows) {
    image.url = fileUrl(image.media_id, image.extension)
    image.mask_url = fileUrl(image.mask_media_id, image.mask_extension)
    byId.get(image.product_id).images.push(image)
  }
  return rows
}
