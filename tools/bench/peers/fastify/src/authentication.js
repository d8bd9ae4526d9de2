// Authentication of the caller, and their role in an organization.
import jwt from '@fastify/jwt'
import fastifyPlugin from 'fastify-plugin'

import { HttpError } from './problems.js'

const selectCaller = {
  name: 'select-caller',
  text: `SELECT u.id, u.is_superuser, m.organization_id, m.role
         FROM users u LEFT JOIN memberships m ON m.user_id = u.id
         WHERE u.id = $1 AND u.is_active`,
}

class Caller {
  constructor(rows) {
    this.id = rows[0].id
    this.isSuperuser = rows[0].is_superuser
    this.roles = new Map(rows.map((row) => [row.organization_id, row.role]))
  }

  // Throws 404 if the caller is not a member, and 403 if a viewer wants to write.
  require(organizationId, { writing = false } = {}) {
    const role = organizationId ? this.roles.get(organizationId) : undefined
    if (role === undefined && !this.isSuperuser) throw new HttpError(404, 'Not found')
    if (writing && role === 'viewer') throw new HttpError(403, 'Not enough permissions')
  }
}

async function authentication(app, { secret }) {
  app.register(jwt, {
    secret,
    verify: { algorithms: ['HS256'], allowedAud: 'sartiq-api', cache: 1000 },
  })
  app.decorateRequest('caller', null)
  app.decorate('authenticate', async (request) => {
    try {
      await request.jwtVerify()
    } catch {
      throw new HttpError(401, 'Could not validate credentials')
    }
    const { rows } = await app.pool.query({ ...selectCaller, values: [request.user.sub] })
    if (rows.length === 0) throw new HttpError(401, 'Could not validate credentials')
    request.caller = new Caller(rows)
  })
}

export default fastifyPlugin(authentication)
