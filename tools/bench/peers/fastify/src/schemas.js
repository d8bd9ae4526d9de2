// JSON schemas of requests, which Ajv compiles, and of responses, which fast-json-stringify compiles.
const NO_NUL = '^[^\\x00]*$'
const text = (maxLength, minLength = 0) => ({ type: 'string', minLength, maxLength, pattern: NO_NUL })
const nullable = (schema) => ({ ...schema, type: [schema.type, 'null'] })
const uuid = { type: 'string', format: 'uuid' }
const moment = { type: 'string' }

const GENDERS = ['FEMALE', 'MALE', 'UNISEX']
const writable = {
  sku: nullable(text(80, 1)),
  name: text(120, 1),
  description: nullable(text(5000)),
  category: nullable(text(80, 1)),
  gender: { enum: [...GENDERS, null] },
  materials: nullable(text(500)),
  color: nullable(text(80)),
}

export const productCreate = {
  type: 'object',
  additionalProperties: false,
  required: ['name'],
  properties: writable,
}
export const productUpdate = {
  type: 'object',
  additionalProperties: false,
  properties: { ...writable, state: { enum: ['DRAFT', 'READY', 'ARCHIVED'] } },
}
export const productPath = { type: 'object', properties: { product_id: uuid } }
// Ajv converts no types, so numbers of a query have patterns. The handler reads them with Number().
export const inOrganization = {
  type: 'object',
  required: ['organization_id'],
  properties: { organization_id: uuid },
}
export const pageQuery = {
  ...inOrganization,
  properties: {
    organization_id: uuid,
    skip: { type: 'string', pattern: '^(\\d{1,6}|1000000)$', default: '0' },
    limit: { type: 'string', pattern: '^([1-9]\\d?|100)$', default: '100' },
    cursor: { type: 'string', maxLength: 200 },
  },
}

const region = {
  type: 'object',
  nullable: true,
  properties: { x: { type: 'number' }, y: { type: 'number' }, width: { type: 'number' }, height: { type: 'number' } },
}
const string = { type: 'string' }
const stringOrNull = { type: 'string', nullable: true }
const integer = { type: 'integer' }
const image = {
  type: 'object',
  properties: {
    id: string,
    created_at: moment,
    updated_at: moment,
    url: string,
    type: string,
    width: integer,
    height: integer,
    position: integer,
    alt_text: stringOrNull,
    region,
    mask_url: stringOrNull,
  },
}
export const product = {
  type: 'object',
  properties: {
    id: string,
    created_at: moment,
    updated_at: moment,
    owner_id: string,
    organization_id: stringOrNull,
    sku: stringOrNull,
    name: string,
    description: stringOrNull,
    category: stringOrNull,
    gender: stringOrNull,
    materials: stringOrNull,
    color: stringOrNull,
    brand_id: stringOrNull,
    cover_image: stringOrNull,
    images: { type: 'array', items: image },
    state: string,
    public: { type: 'boolean' },
    external_id: stringOrNull,
    metadata: { type: 'object', additionalProperties: string },
  },
}
export const productPage = {
  type: 'object',
  properties: {
    data: { type: 'array', items: product },
    count: integer,
    count_exact: { type: 'boolean' },
    next_cursor: stringOrNull,
  },
}
