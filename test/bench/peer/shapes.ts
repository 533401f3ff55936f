// Shapes of the peer model by name, as arguments of make_model.py; what is not said is that script's default.
export const SHAPES = {
  /** 458M parameters, 106M of them active: 64 experts, 6 used. */
  mid: [],
  /** 133M parameters, 38M active, almost half of those the output head. */
  tiny: [...['hidden=512', 'heads=8', 'q_lora=256', 'kv_lora=128'], ...['experts=32', 'used=4', 'inter=1024']],
  /** 317M parameters: few large experts, 32 heads, 512 keys a query. */
  wide: ['heads=32', 'topk=512', 'experts=8', 'used=2', 'moe=1024'],
} as const satisfies Record<string, readonly string[]>

export type ShapeName = keyof typeof SHAPES
export const isShape = (name: string): name is ShapeName => Object.hasOwn(SHAPES, name)
