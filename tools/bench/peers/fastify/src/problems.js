// Error responses as problem details (RFC 9457): the contract requires them in place of Fastify's own.
import { STATUS_CODES } from 'node:http'

import fastifyPlugin from 'fastify-plugin'

const CODES = {
  401: 'invalid_token',
  403: 'not_enough_permissions',
  404: 'not_found',
  409: 'sku_taken',
  412: 'precondition_failed',
  422: 'invalid_request',
}
const UNIQUE_VIOLATION = '23505'
const PLACES = { querystring: 'query', params: 'path', headers: 'header' }

export class HttpError extends Error {
  constructor(statusCode, detail) {
    super(detail)
    this.statusCode = statusCode
  }
}

function toViolation(place, { instancePath, params, message, keyword }) {
  const name = params.additionalProperty ?? params.missingProperty ?? instancePath.slice(1)
  return { loc: name ? [place, name] : [place], msg: message, type: keyword }
}

function reply422(error) {
  const place = PLACES[error.validationContext] ?? error.validationContext
  const violations = error.validation.map((each) => toViolation(place, each))
  // One value can violate several keywords, such as those of an enum that may be null.
  return [...new Map(violations.map((each) => [each.loc.join('/'), each])).values()]
}

async function problems(app) {
  app.setErrorHandler((error, _request, reply) => {
    let [status, detail] = [error.statusCode ?? 500, error.message]
    if (error.validation) [status, detail] = [422, reply422(error)]
    if (error.code === UNIQUE_VIOLATION) [status, detail] = [409, 'A product with this SKU exists already']
    if (status >= 500) console.error(error)
    const code = CODES[status] ?? 'error'
    const type = `${process.env.PUBLIC_URL}/api/v1/problems/${code}`
    // A string is sent as it is: the schemas of responses are those of the status 2xx.
    reply
      .code(status)
      .header('content-type', 'application/problem+json')
      .serializer(JSON.stringify)
      .send({ type, title: STATUS_CODES[status], status, detail, code })
  })
}

export default fastifyPlugin(problems)
