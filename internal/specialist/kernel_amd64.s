#include "textflag.h"

// Every kernel multiplies and then adds, never fused, so that it gives the same bits as kernel_generic.go. Lengths are
// multiples of 8.

// func addScaledAVX2(dst, src *float32, n int, a float32)
TEXT ·addScaledAVX2(SB), NOSPLIT, $0-28
	MOVQ dst+0(FP), DI
	MOVQ src+8(FP), SI
	MOVQ n+16(FP), CX
	VBROADCASTSS a+24(FP), Y0
	XORQ AX, AX
pair:
	LEAQ 16(AX), DX
	CMPQ DX, CX
	JGT  last
	VMULPS (SI)(AX*4), Y0, Y1
	VMULPS 32(SI)(AX*4), Y0, Y2
	VADDPS (DI)(AX*4), Y1, Y1
	VADDPS 32(DI)(AX*4), Y2, Y2
	VMOVUPS Y1, (DI)(AX*4)
	VMOVUPS Y2, 32(DI)(AX*4)
	MOVQ DX, AX
	JMP  pair
last:
	CMPQ AX, CX
	JGE  done
	VMULPS (SI)(AX*4), Y0, Y1
	VADDPS (DI)(AX*4), Y1, Y1
	VMOVUPS Y1, (DI)(AX*4)
done:
	VZEROUPPER
	RET

// func dotAVX2(a, b *float32, n int) float32
TEXT ·dotAVX2(SB), NOSPLIT, $0-28
	MOVQ a+0(FP), SI
	MOVQ b+8(FP), DI
	MOVQ n+16(FP), CX
	VXORPS Y0, Y0, Y0
	VXORPS Y1, Y1, Y1
	XORQ AX, AX
pair:
	LEAQ 16(AX), DX
	CMPQ DX, CX
	JGT  last
	VMOVUPS (SI)(AX*4), Y2
	VMOVUPS 32(SI)(AX*4), Y3
	VMULPS (DI)(AX*4), Y2, Y2
	VMULPS 32(DI)(AX*4), Y3, Y3
	VADDPS Y2, Y0, Y0
	VADDPS Y3, Y1, Y1
	MOVQ DX, AX
	JMP  pair
last:
	CMPQ AX, CX
	JGE  sum
	VMOVUPS (SI)(AX*4), Y2
	VMULPS (DI)(AX*4), Y2, Y2
	VADDPS Y2, Y0, Y0
sum:
	VADDPS Y1, Y0, Y0
	VEXTRACTF128 $1, Y0, X1
	VADDPS X1, X0, X0
	VPERMILPS $0x4e, X0, X1
	VADDPS X1, X0, X0
	VPERMILPS $0xb1, X0, X1
	VADDPS X1, X0, X0
	MOVSS X0, ret+24(FP)
	VZEROUPPER
	RET

// func sumRowsAVX2(dst, table *float32, rows *uint32, values *float32, n int)
// dst = sum of values[j] · table[rows[j]], rows of 64; the sum stays in registers.
TEXT ·sumRowsAVX2(SB), NOSPLIT, $0-40
	MOVQ dst+0(FP), DI
	MOVQ table+8(FP), SI
	MOVQ rows+16(FP), R8
	MOVQ values+24(FP), R9
	MOVQ n+32(FP), CX
	VXORPS Y0, Y0, Y0
	VXORPS Y1, Y1, Y1
	VXORPS Y2, Y2, Y2
	VXORPS Y3, Y3, Y3
	VXORPS Y4, Y4, Y4
	VXORPS Y5, Y5, Y5
	VXORPS Y6, Y6, Y6
	VXORPS Y7, Y7, Y7
	XORQ AX, AX
next:
	CMPQ AX, CX
	JGE  done
	LEAQ 6(AX), DX
	CMPQ DX, CX
	JGE  near
	MOVL (R8)(DX*4), DX
	SHLQ $8, DX
	PREFETCHT0 (SI)(DX*1)
	PREFETCHT0 64(SI)(DX*1)
	PREFETCHT0 128(SI)(DX*1)
	PREFETCHT0 192(SI)(DX*1)
near:
	MOVL (R8)(AX*4), DX
	SHLQ $8, DX
	ADDQ SI, DX
	VBROADCASTSS (R9)(AX*4), Y8
	VMULPS (DX), Y8, Y9
	VADDPS Y9, Y0, Y0
	VMULPS 32(DX), Y8, Y10
	VADDPS Y10, Y1, Y1
	VMULPS 64(DX), Y8, Y11
	VADDPS Y11, Y2, Y2
	VMULPS 96(DX), Y8, Y12
	VADDPS Y12, Y3, Y3
	VMULPS 128(DX), Y8, Y9
	VADDPS Y9, Y4, Y4
	VMULPS 160(DX), Y8, Y10
	VADDPS Y10, Y5, Y5
	VMULPS 192(DX), Y8, Y11
	VADDPS Y11, Y6, Y6
	VMULPS 224(DX), Y8, Y12
	VADDPS Y12, Y7, Y7
	INCQ AX
	JMP  next
done:
	VMOVUPS Y0, (DI)
	VMOVUPS Y1, 32(DI)
	VMOVUPS Y2, 64(DI)
	VMOVUPS Y3, 96(DI)
	VMOVUPS Y4, 128(DI)
	VMOVUPS Y5, 160(DI)
	VMOVUPS Y6, 192(DI)
	VMOVUPS Y7, 224(DI)
	VZEROUPPER
	RET

// func addToRowsAVX2(table *float32, rows *uint32, values *float32, n int, src *float32)
// table[rows[j]] += values[j] · src, rows of 64.
TEXT ·addToRowsAVX2(SB), NOSPLIT, $0-40
	MOVQ table+0(FP), SI
	MOVQ rows+8(FP), R8
	MOVQ values+16(FP), R9
	MOVQ n+24(FP), CX
	MOVQ src+32(FP), DI
	VMOVUPS (DI), Y0
	VMOVUPS 32(DI), Y1
	VMOVUPS 64(DI), Y2
	VMOVUPS 96(DI), Y3
	VMOVUPS 128(DI), Y4
	VMOVUPS 160(DI), Y5
	VMOVUPS 192(DI), Y6
	VMOVUPS 224(DI), Y7
	XORQ AX, AX
next:
	CMPQ AX, CX
	JGE  done
	MOVL (R8)(AX*4), DX
	SHLQ $8, DX
	ADDQ SI, DX
	VBROADCASTSS (R9)(AX*4), Y8
	VMULPS Y0, Y8, Y9
	VADDPS (DX), Y9, Y9
	VMOVUPS Y9, (DX)
	VMULPS Y1, Y8, Y10
	VADDPS 32(DX), Y10, Y10
	VMOVUPS Y10, 32(DX)
	VMULPS Y2, Y8, Y11
	VADDPS 64(DX), Y11, Y11
	VMOVUPS Y11, 64(DX)
	VMULPS Y3, Y8, Y12
	VADDPS 96(DX), Y12, Y12
	VMOVUPS Y12, 96(DX)
	VMULPS Y4, Y8, Y9
	VADDPS 128(DX), Y9, Y9
	VMOVUPS Y9, 128(DX)
	VMULPS Y5, Y8, Y10
	VADDPS 160(DX), Y10, Y10
	VMOVUPS Y10, 160(DX)
	VMULPS Y6, Y8, Y11
	VADDPS 192(DX), Y11, Y11
	VMOVUPS Y11, 192(DX)
	VMULPS Y7, Y8, Y12
	VADDPS 224(DX), Y12, Y12
	VMOVUPS Y12, 224(DX)
	INCQ AX
	JMP  next
done:
	VZEROUPPER
	RET

// func sumLanesAVX2(dst, table *float32, rows *uint32, values *float32, n int)
// dst = sum of values[j] · table[rows[j]], rows of 8; term j goes to part j%4.
TEXT ·sumLanesAVX2(SB), NOSPLIT, $0-40
	MOVQ dst+0(FP), DI
	MOVQ table+8(FP), SI
	MOVQ rows+16(FP), R8
	MOVQ values+24(FP), R9
	MOVQ n+32(FP), CX
	VXORPS Y0, Y0, Y0
	VXORPS Y1, Y1, Y1
	VXORPS Y2, Y2, Y2
	VXORPS Y3, Y3, Y3
	XORQ AX, AX
four:
	LEAQ 4(AX), DX
	CMPQ DX, CX
	JGT  rest
	MOVL (R8)(AX*4), R10
	MOVL 4(R8)(AX*4), R11
	MOVL 8(R8)(AX*4), R12
	MOVL 12(R8)(AX*4), R13
	SHLQ $5, R10
	SHLQ $5, R11
	SHLQ $5, R12
	SHLQ $5, R13
	VBROADCASTSS (R9)(AX*4), Y4
	VBROADCASTSS 4(R9)(AX*4), Y5
	VBROADCASTSS 8(R9)(AX*4), Y6
	VBROADCASTSS 12(R9)(AX*4), Y7
	VMULPS (SI)(R10*1), Y4, Y4
	VMULPS (SI)(R11*1), Y5, Y5
	VMULPS (SI)(R12*1), Y6, Y6
	VMULPS (SI)(R13*1), Y7, Y7
	VADDPS Y4, Y0, Y0
	VADDPS Y5, Y1, Y1
	VADDPS Y6, Y2, Y2
	VADDPS Y7, Y3, Y3
	MOVQ DX, AX
	JMP  four
rest:
	CMPQ AX, CX
	JGE  done
	MOVL (R8)(AX*4), R10
	SHLQ $5, R10
	VBROADCASTSS (R9)(AX*4), Y4
	VMULPS (SI)(R10*1), Y4, Y4
	VADDPS Y4, Y0, Y0
	INCQ AX
	CMPQ AX, CX
	JGE  done
	MOVL (R8)(AX*4), R10
	SHLQ $5, R10
	VBROADCASTSS (R9)(AX*4), Y4
	VMULPS (SI)(R10*1), Y4, Y4
	VADDPS Y4, Y1, Y1
	INCQ AX
	CMPQ AX, CX
	JGE  done
	MOVL (R8)(AX*4), R10
	SHLQ $5, R10
	VBROADCASTSS (R9)(AX*4), Y4
	VMULPS (SI)(R10*1), Y4, Y4
	VADDPS Y4, Y2, Y2
done:
	VADDPS Y1, Y0, Y0
	VADDPS Y3, Y2, Y2
	VADDPS Y2, Y0, Y0
	VMOVUPS Y0, (DI)
	VZEROUPPER
	RET

// func addLanesAVX2(table *float32, rows *uint32, values *float32, n int, src *float32)
// table[rows[j]] += values[j] · src, rows of 8.
TEXT ·addLanesAVX2(SB), NOSPLIT, $0-40
	MOVQ table+0(FP), SI
	MOVQ rows+8(FP), R8
	MOVQ values+16(FP), R9
	MOVQ n+24(FP), CX
	MOVQ src+32(FP), DI
	VMOVUPS (DI), Y0
	XORQ AX, AX
next:
	CMPQ AX, CX
	JGE  done
	MOVL (R8)(AX*4), R10
	SHLQ $5, R10
	VBROADCASTSS (R9)(AX*4), Y1
	VMULPS Y0, Y1, Y1
	VADDPS (SI)(R10*1), Y1, Y1
	VMOVUPS Y1, (SI)(R10*1)
	INCQ AX
	JMP  next
done:
	VZEROUPPER
	RET

// callForRow prefetches the row and the scale of entry i of sumByteRowsAVX2.
#define callForRow(i) \
	MOVL (R8)(i*8), DX \
	PREFETCHT0 (R11)(DX*4) \
	IMULQ R10, DX \
	ADDQ SI, DX \
	PREFETCHT0 (DX) \
	PREFETCHT0 -1(DX)(R12*1)

#define AHEAD 40 // entries: 64 are as good, 12 take half as long again

// func sumByteRowsAVX2(dst *float32, width int, table *int8, stride int, scale *float32, vector *entry, n int)
// dst += sum of value · scale[row] · table[row], of width ≤ 64 columns of rows that are stride bytes apart; dst has room for 64, and
// the sum stays in registers. The rows lie all over the table, so they are called for long before they are needed.
TEXT ·sumByteRowsAVX2(SB), NOSPLIT, $0-56
	MOVQ dst+0(FP), DI
	MOVQ width+8(FP), R12
	MOVQ table+16(FP), SI
	MOVQ stride+24(FP), R10
	MOVQ scale+32(FP), R11
	MOVQ vector+40(FP), R8
	MOVQ n+48(FP), CX
	VMOVUPS (DI), Y0
	VMOVUPS 32(DI), Y1
	VMOVUPS 64(DI), Y2
	VMOVUPS 96(DI), Y3
	VMOVUPS 128(DI), Y4
	VMOVUPS 160(DI), Y5
	VMOVUPS 192(DI), Y6
	VMOVUPS 224(DI), Y7
	XORQ AX, AX
first:
	CMPQ AX, $AHEAD
	JGE  begin
	CMPQ AX, CX
	JGE  begin
	callForRow(AX)
	INCQ AX
	JMP  first
begin:
	XORQ AX, AX
	JMP  test
next:
	LEAQ AHEAD(AX), DX
	CMPQ DX, CX
	JGE  near
	callForRow(DX)
near:
	MOVL (R8)(AX*8), DX
	VMOVSS 4(R8)(AX*8), X8
	VMULSS (R11)(DX*4), X8, X8
	VBROADCASTSS X8, Y8
	IMULQ R10, DX
	ADDQ SI, DX
	VPMOVSXBD (DX), Y9
	VCVTDQ2PS Y9, Y9
	VMULPS Y8, Y9, Y9
	VADDPS Y9, Y0, Y0
	CMPQ R12, $8
	JLE  after
	VPMOVSXBD 8(DX), Y10
	VCVTDQ2PS Y10, Y10
	VMULPS Y8, Y10, Y10
	VADDPS Y10, Y1, Y1
	CMPQ R12, $16
	JLE  after
	VPMOVSXBD 16(DX), Y11
	VCVTDQ2PS Y11, Y11
	VMULPS Y8, Y11, Y11
	VADDPS Y11, Y2, Y2
	CMPQ R12, $24
	JLE  after
	VPMOVSXBD 24(DX), Y12
	VCVTDQ2PS Y12, Y12
	VMULPS Y8, Y12, Y12
	VADDPS Y12, Y3, Y3
	CMPQ R12, $32
	JLE  after
	VPMOVSXBD 32(DX), Y9
	VCVTDQ2PS Y9, Y9
	VMULPS Y8, Y9, Y9
	VADDPS Y9, Y4, Y4
	CMPQ R12, $40
	JLE  after
	VPMOVSXBD 40(DX), Y10
	VCVTDQ2PS Y10, Y10
	VMULPS Y8, Y10, Y10
	VADDPS Y10, Y5, Y5
	CMPQ R12, $48
	JLE  after
	VPMOVSXBD 48(DX), Y11
	VCVTDQ2PS Y11, Y11
	VMULPS Y8, Y11, Y11
	VADDPS Y11, Y6, Y6
	CMPQ R12, $56
	JLE  after
	VPMOVSXBD 56(DX), Y12
	VCVTDQ2PS Y12, Y12
	VMULPS Y8, Y12, Y12
	VADDPS Y12, Y7, Y7
after:
	INCQ AX
test:
	CMPQ AX, CX
	JLT  next
	VMOVUPS Y0, (DI)
	VMOVUPS Y1, 32(DI)
	VMOVUPS Y2, 64(DI)
	VMOVUPS Y3, 96(DI)
	VMOVUPS Y4, 128(DI)
	VMOVUPS Y5, 160(DI)
	VMOVUPS Y6, 192(DI)
	VMOVUPS Y7, 224(DI)
	VZEROUPPER
	RET

// func lookUpAVX2(found *sighting, features *feature, n int, seen *uint64, mask, shift uint64) (known int)
// Four features at a time: the row is hash >> shift, and training saw those whose four bits are all set in their word of seen.
TEXT ·lookUpAVX2(SB), NOSPLIT, $0-56
	MOVQ found+0(FP), DI
	MOVQ features+8(FP), SI
	MOVQ n+16(FP), CX
	MOVQ seen+24(FP), R8
	VPBROADCASTQ mask+32(FP), Y10
	VMOVQ shift+40(FP), X11
	VPCMPEQQ Y13, Y13, Y13
	VPSRLQ $58, Y13, Y12 // 63
	VPSRLQ $63, Y13, Y13 // 1
	VPXOR Y14, Y14, Y14
next:
	CMPQ CX, $4
	JLT  done
	VMOVDQU (SI), Y0
	VMOVDQU 32(SI), Y1
	VPUNPCKLQDQ Y1, Y0, Y0
	VPERMQ $0xd8, Y0, Y0
	VPAND Y10, Y0, Y1
	VPCMPEQQ Y3, Y3, Y3
	VPGATHERQQ Y3, (R8)(Y1*8), Y2
	VPSRLQ $20, Y0, Y4
	VPAND Y12, Y4, Y4
	VPSRLVQ Y4, Y2, Y5
	VPSRLQ $26, Y0, Y4
	VPAND Y12, Y4, Y4
	VPSRLVQ Y4, Y2, Y6
	VPAND Y6, Y5, Y5
	VPSRLQ $32, Y0, Y4
	VPAND Y12, Y4, Y4
	VPSRLVQ Y4, Y2, Y6
	VPAND Y6, Y5, Y5
	VPSRLQ $38, Y0, Y4
	VPAND Y12, Y4, Y4
	VPSRLVQ Y4, Y2, Y6
	VPAND Y6, Y5, Y5
	VPAND Y13, Y5, Y5
	VPADDQ Y5, Y14, Y14
	VPSLLQ $32, Y5, Y5
	VPSRLQ X11, Y0, Y0
	VPOR Y5, Y0, Y0
	VMOVDQU Y0, (DI)
	ADDQ $64, SI
	ADDQ $32, DI
	SUBQ $4, CX
	JMP  next
done:
	VEXTRACTI128 $1, Y14, X0
	VPADDQ X0, X14, X0
	VPSHUFD $0x4e, X0, X1
	VPADDQ X1, X0, X0
	VMOVQ X0, known+48(FP)
	VZEROUPPER
	RET
